"""The fixed words of the demo shop: kinds, colours, patterns, materials, brands and places.

Every notion has three words in each language. Titles use the first two (the first mostly), typed
and spoken queries use all three, and the third is a shopper's word that no title or description
contains: it can only be learnt from the log.
"""

from __future__ import annotations

from dataclasses import dataclass

Words = tuple[str, str, str]


@dataclass(frozen=True)
class Notion:
    """Something that can be said: `en` and `zh` hold title word, other title word, query word."""

    name: str
    en: Words
    zh: Words


@dataclass(frozen=True)
class Kind(Notion):
    """A kind of product.

    Attributes:
      category: The department, as the `category` column has it.
      family: Kinds of one family are siblings: not what was asked, yet not beside the point.
      materials: Names of the materials that it is made of.
      price: Typical price.
    """

    category: str
    family: str
    materials: tuple[str, ...]
    price: float


@dataclass(frozen=True)
class Place:
    """Where shoppers live: the `place` column, hours east of UTC, and what sells better there."""

    name: str
    utc_offset_hours: int
    language: str
    favours: tuple[str, ...]


_FEET = ("leather", "canvas", "suede", "rubber")
_CLOTH = ("cotton", "linen", "wool", "silk", "denim")
_BAG = ("leather", "canvas", "nylon", "suede")
_TABLEWARE = ("ceramic", "steel", "glass", "enamel")
_ROOM = ("oak", "walnut", "rattan", "steel")
_SOFT = ("velvet", "linen", "wool", "cotton")
_DECOR = ("ceramic", "glass", "brass", "bamboo")
_DEVICE = ("plastic", "aluminium", "walnut", "bamboo")
_PLAY = ("plastic", "nylon", "rubber", "bamboo")


def _kinds(text: str) -> tuple[Kind, ...]:
    rows = []
    for line in text.strip().splitlines():
        name, en, zh, family, price = (cell.strip() for cell in line.split("|"))
        category, materials = _FAMILIES[family]
        english, chinese = (tuple(w.strip() for w in cell.split(",")) for cell in (en, zh))
        (en1, en2, en3), (zh1, zh2, zh3) = english, chinese
        words = (en1, en2, en3), (zh1, zh2, zh3)
        rows.append(Kind(name, *words, category, family, materials, float(price)))
    return tuple(rows)


_FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "closed shoes": ("footwear", _FEET),
    "open shoes": ("footwear", _FEET),
    "whole-length": ("clothing", _CLOTH),
    "tops": ("clothing", _CLOTH),
    "legs": ("clothing", _CLOTH),
    "hands and feet": ("clothing", _CLOTH),
    "bags": ("accessories", _BAG),
    "head": ("accessories", _BAG),
    "small things": ("accessories", ("steel", "leather", "plastic", "brass")),
    "rain": ("accessories", ("nylon", "silk", "bamboo")),
    "drinking": ("kitchen", _TABLEWARE),
    "pouring": ("kitchen", _TABLEWARE),
    "cooking": ("kitchen", ("steel", "enamel", "aluminium", "ceramic")),
    "seats": ("furniture", _ROOM),
    "soft seats": ("furniture", _SOFT),
    "storage": ("furniture", _ROOM),
    "surfaces": ("furniture", _ROOM),
    "light": ("home", _DECOR),
    "decoration": ("home", _DECOR),
    "textiles": ("home", _SOFT),
    "strings": ("music and sound", ("walnut", "oak", "bamboo")),
    "listening": ("music and sound", _DEVICE),
    "percussion": ("music and sound", ("walnut", "oak", "steel")),
    "devices": ("music and sound", _DEVICE),
    "flying": ("play", _PLAY),
    "sport": ("play", _PLAY),
    "soft toys": ("play", _SOFT),
    "camping": ("play", ("nylon", "canvas", "cotton")),
}

KINDS = _kinds(
    """
sneaker    | sneakers, trainers, gym shoes      | 运动鞋, 球鞋, 跑步鞋     | closed shoes   | 70
boot       | boots, ankle boots, booties        | 靴子, 短靴, 马丁靴       | closed shoes   | 95
slipper    | slippers, house shoes, mules       | 拖鞋, 居家鞋, 凉拖       | open shoes     | 22
sandal     | sandals, flip-flops, thongs        | 凉鞋, 沙滩鞋, 罗马鞋     | open shoes     | 38
pump       | high heels, pumps, stilettos       | 高跟鞋, 细跟鞋, 女式皮鞋 | closed shoes   | 85
dress      | dress, gown, frock                 | 连衣裙, 长裙, 礼服       | whole-length   | 60
coat       | coat, overcoat, parka              | 大衣, 风衣, 外套         | whole-length   | 140
skirt      | skirt, mini skirt, kilt            | 半身裙, 短裙, 百褶裙     | legs           | 35
shirt      | shirt, blouse, chemise             | 衬衫, 衬衣, 上衣         | tops           | 32
sweater    | sweater, jumper, pullover          | 毛衣, 针织衫, 套头衫     | tops           | 48
trousers   | trousers, pants, slacks            | 长裤, 裤子, 休闲裤       | legs           | 45
glove      | gloves, mittens, mitts             | 手套, 连指手套, 保暖手套 | hands and feet | 18
sock       | socks, stockings, hosiery          | 袜子, 长袜, 中筒袜       | hands and feet | 9
backpack   | backpack, rucksack, knapsack       | 背包, 双肩包, 书包       | bags           | 58
handbag    | handbag, purse, tote               | 手提包, 女包, 托特包     | bags           | 90
suitcase   | suitcase, trolley case, luggage    | 行李箱, 拉杆箱, 旅行箱   | bags           | 110
hat        | hat, fedora, trilby                | 帽子, 礼帽, 宽檐帽       | head           | 25
sunglasses | sunglasses, shades, sunnies        | 太阳镜, 墨镜, 遮阳镜     | small things   | 40
watch      | watch, wristwatch, timepiece       | 手表, 腕表, 石英表       | small things   | 150
umbrella   | umbrella, parasol, brolly          | 雨伞, 遮阳伞, 晴雨伞     | rain           | 20
mug        | mug, coffee cup, tea cup           | 马克杯, 咖啡杯, 水杯     | drinking       | 12
goblet     | goblet, wine glass, chalice        | 高脚杯, 红酒杯, 酒杯     | drinking       | 16
teapot     | teapot, tea kettle, tea brewer     | 茶壶, 泡茶壶, 功夫茶具   | pouring        | 34
kettle     | kettle, water boiler, hot pot      | 烧水壶, 电热水壶, 开水壶 | pouring        | 44
bottle     | bottle, flask, canteen             | 瓶子, 水瓶, 保温瓶       | pouring        | 19
pan        | frying pan, skillet, griddle       | 平底锅, 煎锅, 炒锅       | cooking        | 36
toaster    | toaster, bread toaster, grill oven | 烤面包机, 多士炉, 吐司机 | cooking        | 49
chair      | chair, dining chair, side seat     | 椅子, 餐椅, 靠背椅       | seats          | 80
stool      | stool, bar stool, taboret          | 凳子, 吧台凳, 高脚凳     | seats          | 45
sofa       | sofa, couch, settee                | 沙发, 布艺沙发, 长座椅   | soft seats     | 480
bed        | bed, bedstead, bunk                | 床, 双人床, 睡床         | soft seats     | 420
table      | table, dining table, desk          | 桌子, 餐桌, 书桌         | surfaces       | 190
bookcase   | bookcase, bookshelf, shelving      | 书架, 书柜, 置物架       | storage        | 130
dresser    | chest of drawers, dresser, bureau  | 抽屉柜, 五斗柜, 斗橱     | storage        | 210
lamp       | lamp, table lamp, night light      | 台灯, 床头灯, 夜灯       | light          | 42
lantern    | lantern, hurricane lamp, glim      | 灯笼, 提灯, 马灯         | light          | 28
candle     | candle, scented candle, taper      | 蜡烛, 香薰蜡烛, 烛灯     | light          | 14
clock      | clock, wall clock, timekeeper      | 挂钟, 时钟, 钟表         | decoration     | 38
vase       | vase, flower vase, urn             | 花瓶, 插花瓶, 花器       | decoration     | 30
cushion    | cushion, throw pillow, bolster     | 靠垫, 抱枕, 靠枕         | textiles       | 17
rug        | rug, carpet, floor mat             | 地毯, 地垫, 毯子         | textiles       | 75
guitar     | guitar, acoustic guitar, six-string | 吉他, 民谣吉他, 六弦琴  | strings        | 220
violin     | violin, fiddle, viola              | 小提琴, 提琴, 中提琴     | strings        | 260
drum       | drum, snare drum, tom-tom          | 鼓, 小军鼓, 手鼓         | percussion     | 120
headphones | headphones, headset, earphones     | 耳机, 头戴式耳机, 耳麦   | listening      | 85
speaker    | speaker, loudspeaker, boombox      | 音箱, 扬声器, 音响       | listening      | 99
camera     | camera, compact camera, shooter    | 相机, 照相机, 拍摄机     | devices        | 310
kite       | kite, stunt kite, flying wing      | 风筝, 特技风筝, 纸鸢     | flying         | 15
balloon    | balloon, party balloon, airball    | 气球, 派对气球, 飘空球   | flying         | 6
skateboard | skateboard, longboard, deck        | 滑板, 长板, 四轮板       | sport          | 65
racket     | racket, tennis racket, paddle      | 球拍, 网球拍, 拍子       | sport          | 72
ball       | ball, football, soccer ball        | 皮球, 足球, 玩具球       | sport          | 18
bear       | teddy bear, plush bear, stuffed toy | 泰迪熊, 毛绒熊, 布娃娃  | soft toys      | 24
tent       | tent, camping tent, bivouac        | 帐篷, 露营帐篷, 野营帐   | camping        | 160
"""
)


def _notions(text: str) -> tuple[Notion, ...]:
    rows = []
    for line in text.strip().splitlines():
        name, en, zh = (cell.strip() for cell in line.split("|"))
        (en1, en2, en3), (zh1, zh2, zh3) = (
            tuple(w.strip() for w in cell.split(",")) for cell in (en, zh)
        )
        rows.append(Notion(name, (en1, en2, en3), (zh1, zh2, zh3)))
    return tuple(rows)


COLOURS = _notions(
    """
red    | red, crimson, scarlet          | 红色, 大红, 朱红
pink   | pink, rose pink, blush         | 粉色, 玫粉, 桃红
orange | orange, tangerine, apricot     | 橙色, 橘色, 杏黄
yellow | yellow, lemon, mustard         | 黄色, 柠檬黄, 明黄
green  | green, emerald, grass green    | 绿色, 草绿, 翠绿
teal   | teal, turquoise, petrol        | 青色, 蓝绿, 孔雀绿
blue   | blue, sky blue, azure          | 蓝色, 天蓝, 湖蓝
navy   | navy, dark blue, midnight      | 藏青, 深蓝, 海军蓝
purple | purple, violet, plum           | 紫色, 葡萄紫, 薰衣草紫
brown  | brown, chocolate, chestnut     | 棕色, 咖啡色, 褐色
beige  | beige, cream, sand             | 米色, 杏色, 奶油色
white  | white, ivory, snow             | 白色, 乳白, 雪白
grey   | grey, silver, ash              | 灰色, 银灰, 烟灰
black  | black, jet black, charcoal     | 黑色, 纯黑, 墨黑
"""
)

PATTERNS = _notions(
    """
plain    | plain, solid colour, unpatterned  | 纯色, 素色, 单色
striped  | striped, stripy, pinstripe        | 条纹, 横条, 竖纹
dotted   | dotted, polka dot, spotted        | 圆点, 波点, 斑点
checked  | checked, plaid, gingham           | 格子, 方格, 棋盘格
zigzag   | zigzag, chevron, herringbone      | 锯齿纹, 人字纹, 折线
floral   | floral, flowery, blossom print    | 碎花, 印花, 花朵
starry   | starry, star print, galaxy        | 星星, 星形, 星空
camo     | camouflage, camo, army print      | 迷彩, 丛林纹, 军旅
ombre    | gradient, ombre, two-tone         | 渐变, 晕染, 双色
"""
)

MATERIALS = _notions(
    """
leather   | leather, cowhide, real hide     | 真皮, 牛皮, 皮革
canvas    | canvas, sailcloth, duck cloth   | 帆布, 粗布, 厚布
suede     | suede, nubuck, chamois          | 麂皮, 磨砂皮, 绒面革
rubber    | rubber, latex, gum              | 橡胶, 乳胶, 胶质
cotton    | cotton, jersey, terry           | 纯棉, 棉质, 全棉
linen     | linen, flax, hemp               | 亚麻, 棉麻, 麻布
wool      | wool, merino, cashmere          | 羊毛, 美利奴, 羊绒
silk      | silk, satin, charmeuse          | 真丝, 缎面, 桑蚕丝
denim     | denim, jean cloth, chambray     | 牛仔, 丹宁, 牛仔布
nylon     | nylon, polyester, ripstop       | 尼龙, 涤纶, 化纤
ceramic   | ceramic, porcelain, stoneware   | 陶瓷, 瓷, 粗陶
steel     | steel, stainless, metal         | 不锈钢, 钢制, 金属
glass     | glass, crystal, transparent     | 玻璃, 水晶, 透明
enamel    | enamel, enamelled, vitreous     | 搪瓷, 珐琅, 釉面
oak       | oak, light wood, hardwood       | 橡木, 原木, 实木
walnut    | walnut, dark wood, timber       | 胡桃木, 深色木, 木头
rattan    | rattan, wicker, cane            | 藤编, 藤条, 编织
velvet    | velvet, velour, plush fabric    | 丝绒, 天鹅绒, 绒布
brass     | brass, bronze, copper           | 黄铜, 铜制, 青铜
bamboo    | bamboo, reed, natural stem      | 竹制, 竹子, 竹木
plastic   | plastic, acrylic, polymer       | 塑料, 亚克力, 树脂
aluminium | aluminium, alloy, light metal   | 铝制, 合金, 轻金属
"""
)

BRANDS = _notions(
    """
Velora   | Velora, Velora, Velora       | 薇洛拉, Velora, 薇洛拉
Kestrel  | Kestrel, Kestrel, Kestrel    | 凯斯特, Kestrel, 凯斯特
Nordvik  | Nordvik, Nordvik, Nordvik    | 诺维克, Nordvik, 诺维克
Tamiko   | Tamiko, Tamiko, Tamiko       | 多美子, Tamiko, 多美子
Brindle  | Brindle, Brindle, Brindle    | 布林德, Brindle, 布林德
Osario   | Osario, Osario, Osario       | 奥萨里, Osario, 奥萨里
Lumeno   | Lumeno, Lumeno, Lumeno       | 鲁美诺, Lumeno, 鲁美诺
Farrow   | Farrow, Farrow, Farrow       | 法罗, Farrow, 法罗
Quillby  | Quillby, Quillby, Quillby    | 奎尔比, Quillby, 奎尔比
Zandra   | Zandra, Zandra, Zandra       | 赞德拉, Zandra, 赞德拉
Halden   | Halden, Halden, Halden       | 哈尔登, Halden, 哈尔登
Mirabel  | Mirabel, Mirabel, Mirabel    | 米拉贝, Mirabel, 米拉贝
Corvo    | Corvo, Corvo, Corvo          | 科沃, Corvo, 科沃
Aldine   | Aldine, Aldine, Aldine       | 阿尔丁, Aldine, 阿尔丁
Shenlu   | Shenlu, Shenlu, Shenlu       | 神鹿, Shenlu, 神鹿
Petalia  | Petalia, Petalia, Petalia    | 佩塔莉, Petalia, 佩塔莉
Rosedal  | Rosedal, Rosedal, Rosedal    | 罗斯达, Rosedal, 罗斯达
Jinhe    | Jinhe, Jinhe, Jinhe          | 金禾, Jinhe, 金禾
Umberto  | Umberto, Umberto, Umberto    | 翁贝托, Umberto, 翁贝托
Wexford  | Wexford, Wexford, Wexford    | 韦克斯, Wexford, 韦克斯
Ibiscus  | Ibiscus, Ibiscus, Ibiscus    | 伊比斯, Ibiscus, 伊比斯
Drummond | Drummond, Drummond, Drummond | 德拉蒙, Drummond, 德拉蒙
Elowen   | Elowen, Elowen, Elowen       | 艾洛温, Elowen, 艾洛温
Yunduo   | Yunduo, Yunduo, Yunduo       | 云朵, Yunduo, 云朵
"""
)

ATTRIBUTES: dict[str, tuple[Notion, ...]] = {
    "colour": COLOURS,
    "pattern": PATTERNS,
    "material": MATERIALS,
    "brand": BRANDS,
}

CATEGORIES = tuple(dict.fromkeys(kind.category for kind in KINDS))

PLACES = (
    Place("Shanghai", 8, "zh", ("devices", "drinking", "rain", "closed shoes")),
    Place("Chengdu", 8, "zh", ("pouring", "cooking", "soft seats", "percussion")),
    Place("Singapore", 8, "zh", ("open shoes", "small things", "light", "listening")),
    Place("London", 0, "en", ("rain", "pouring", "tops", "surfaces")),
    Place("Oslo", 1, "en", ("whole-length", "hands and feet", "light", "camping")),
    Place("Chicago", -6, "en", ("sport", "soft seats", "bags", "strings")),
)

PARTS_OF_DAY: dict[str, tuple[int, ...]] = {
    "kitchen": (6, 7, 8, 9, 10),
    "footwear": (17, 18, 19),
    "clothing": (19, 20, 21),
    "accessories": (7, 8, 12, 13),
    "furniture": (20, 21, 22),
    "home": (21, 22, 23),
    "music and sound": (16, 17, 18),
    "play": (14, 15, 16),
}
"""Local hours in which each category sells better."""

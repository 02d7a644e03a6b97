from tfmm.data.changes import Change, changes


def of(titles: list[str], *, photos: list[bool] | None = None, variants: int = 4) -> list[Change]:
    products = [{"title": title} for title in titles]
    has_photo = photos or [True] * len(titles)
    return list(changes(products, ["title"], has_photo, variants=variants, seed=1))


def test_the_words_are_what_the_wanted_product_has_and_the_photographed_one_has_not():
    titles = ["Aria red striped dress", "Aria blue striped dress", "Oslo lamp"]
    assert of(titles, variants=1)[:2] == [Change(1, "red"), Change(0, "blue")]


def test_the_photo_shows_what_shares_most():
    titles = ["red striped dress", "blue striped dress", "blue dotted dress", "green sock"]
    assert {change.photographed for change in of(titles)[:4]} == {1}


def test_chinese_words_are_cut_where_the_titles_differ():
    assert of(["红色条纹衬衫", "蓝色条纹衬衫"], variants=1) == [
        Change(1, "红色"),
        Change(0, "蓝色"),
    ]


def test_a_product_unlike_all_others_without_text_or_with_a_twin_has_no_change():
    titles = ["red dress", "red dress", "", "anvil"]
    assert of(titles, variants=1) == [Change(index, "") for index in range(4)]


def test_products_without_a_photo_are_not_photographed():
    found = of(["red dress", "blue dress", "black dress"], photos=[True, True, False])
    assert {change.photographed for change in found} == {0, 1}


def test_the_same_seed_gives_the_same_changes():
    titles = [f"{colour} {kind}" for colour in ("red", "blue", "black") for kind in ("cup", "pan")]
    assert of(titles) == of(titles)

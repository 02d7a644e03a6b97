import random

from tfmm.data.catalogue_queries import catalogue_queries, misspell


def test_row_number_tells_the_product_and_words_come_from_its_fields():
    products = [{"title": "blue lamp"}, {"title": ""}, {"title": "red tea pot"}]
    queries = list(catalogue_queries(products, ["title"], variants=20, seed=1))
    assert len(queries) == 60
    assert queries[20:40] == [""] * 20
    exact = {"blue", "lamp", "blue lamp"}
    assert exact <= set(queries[:20])
    assert all(query for query in queries[:20])


def test_chinese_is_cut_in_spans_without_spaces():
    title = "红色条纹衬衫"
    for query in catalogue_queries([{"t": title}], ["t"], variants=30, seed=0):
        assert query in title


def test_the_same_seed_gives_the_same_queries():
    products = [{"title": "a long title of many words"}]
    one, two, other = (
        list(catalogue_queries(products, ["title"], variants=9, seed=seed)) for seed in (3, 3, 4)
    )
    assert one == two
    assert one != other


def test_a_misspelling_is_one_edit_and_short_words_stay():
    chance = random.Random(0)
    assert misspell("cup", chance) == "cup"
    for _ in range(50):
        wrong = misspell("umbrella", chance)
        assert abs(len(wrong) - 8) <= 1
        assert wrong[0] == "u"
        assert wrong[-1] == "a"

import numpy as np

from tfmm.metrics import grade_rankings, measure
from tfmm.parts import catalogue_parts, restrict


def test_only_products_of_the_part_are_relevant_and_the_others_keep_their_ranks():
    judged = [{0: 3.0, 2: 2.0, 4: 1.0}]
    ranking = [0, 1, 2]
    members = np.array([False, True, True, True, True])
    graded = grade_rankings([ranking], judged, depth=4)
    found = restrict(graded, np.array([[0, 1, 2, -1]]), judged, members)
    assert found.grades.tolist() == [[0, 0, 2, 0]]
    assert found.ideal.tolist() == [[2, 1, 0, 0]]
    assert measure(found, "recall@4").tolist() == [1 / 2]
    assert measure(found, "mrr@4").tolist() == [1 / 3]


def test_a_product_that_the_dataset_does_not_have_belongs_to_no_part():
    judged = [{0: 1.0}]
    graded = grade_rankings([[-1, 0]], judged, depth=2)
    found = restrict(graded, np.array([[-1, 0]]), judged, np.array([True, True]))
    assert found.grades.tolist() == [[0, 1]]


def test_parts_are_by_popularity_and_by_what_products_have():
    has = {"image": np.array([True, False, True]), "text": np.array([True, True, True])}
    parts = catalogue_parts(np.array([4, 2, 0]), has)
    assert {(part.dimension, part.name): part.members.tolist() for part in parts} == {
        ("product", "head"): [True, False, False],
        ("product", "tail"): [False, True, False],
        ("product", "cold"): [False, False, True],
        ("product image", "with"): [True, False, True],
        ("product image", "without"): [False, True, False],
    }


def test_what_does_not_divide_the_catalogue_is_no_part():
    assert catalogue_parts(np.zeros(3, int), {}) == ()

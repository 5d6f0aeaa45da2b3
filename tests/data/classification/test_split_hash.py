"""The share of the images that is held out for validation."""

import hashlib

import numpy as np

from data.classification.split_hash import held_out, path_hashes


def test_the_hash_is_that_of_the_path_from_the_class_on() -> None:
    expected = int.from_bytes(hashlib.blake2b(b"cat/sub/1.png", digest_size=8).digest(), "big") / 2**64
    assert path_hashes("cat/sub", [b"0.png", b"1.png"])[1] == expected


def test_accents_have_one_form_and_names_may_have_any_bytes() -> None:
    """macOS writes é as e and an accent; other systems as one letter."""
    assert path_hashes("caf\u00e9", ["\u00e9.png".encode()]) == path_hashes("cafe\u0301", ["e\u0301.png".encode()])
    assert path_hashes("a", [b"\xff.png"]) != path_hashes("a", [b"\xfe.png"])


def test_images_keep_their_side_when_others_are_added() -> None:
    names = [b"%d.png" % n for n in range(2000)]
    before = held_out(path_hashes("cat", names[:1000]), 0.1)
    after = held_out(path_hashes("cat", names), 0.1)
    np.testing.assert_array_equal(before, after[:1000])
    assert 150 <= after.sum() <= 250  # 200 expected, standard deviation 13


def test_a_class_keeps_an_image_for_training() -> None:
    assert held_out(np.array([0.05]), 0.1).tolist() == [False]
    assert held_out(np.array([0.05, 0.07, 0.01]), 0.1).tolist() == [True, False, True]
    assert held_out(np.array([0.05, 0.5]), 0.1).tolist() == [True, False]

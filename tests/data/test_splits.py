import json

import numpy as np
import pytest

from jaxmia.data import Images, Manifest, identity_manifest, mnist, mnist_manifest, orl, orl_manifest, split

PARTS = ("train", "validation", "test")


def toy(classes=6, photos=10):
    """Photos whose pixel value tells the row, with shuffled classes."""
    labels = np.random.default_rng(3).permutation(np.repeat(np.arange(classes, dtype=np.int32), photos))
    rows = np.arange(len(labels), dtype=np.uint8)
    images = np.broadcast_to(rows[:, None, None, None], (len(labels), 2, 2, 1))
    return Images(images, labels, tuple("abcdefghij"[:classes]))


def toy_manifest(images, **changes):
    options = dict(dataset="toy", private=["e", "b", "c"], public=["f", "a"], validation=0.1, test=0.2, seed=0)
    return identity_manifest(images.labels, images.names, **(options | changes))


def rows_of(part):
    return part.images[:, 0, 0, 0].astype(int)


def test_split_follows_the_manifest_and_renumbers():
    images = toy()
    manifest = toy_manifest(images)
    parts = split(images, manifest)
    for name, photos in zip(PARTS, (7, 1, 2), strict=True):
        part = getattr(parts, name)
        assert part.names == ("e", "b", "c")
        assert np.bincount(part.labels).tolist() == [photos] * 3
        original = images.labels[rows_of(part)]
        assert np.array_equal(original, np.array([4, 1, 2])[part.labels])
    assert parts.public.names == ("f", "a")
    assert np.array_equal(images.labels[rows_of(parts.public)], np.array([5, 0])[parts.public.labels])
    assert len(parts.public.images) == 20


def test_parts_share_no_photo():
    images = toy()
    parts = split(images, toy_manifest(images))
    together = np.concatenate([rows_of(part) for part in parts])
    assert len(together) == len(set(together.tolist())) == 50


def test_seed_moves_photos_and_nothing_else_does():
    images = toy()
    first = toy_manifest(images)
    assert toy_manifest(images) == first and toy_manifest(images).digest == first.digest
    other = toy_manifest(images, seed=1)
    assert other.private == first.private and other.test != first.test and other.digest != first.digest
    # a class keeps its division whoever else is private
    assert toy_manifest(images, private=["b"]).test[0] == first.test[1]


def test_manifest_survives_the_file(tmp_path):
    manifest = orl_manifest(seed=3)
    manifest.write(tmp_path / "orl.json")
    again = Manifest.read(tmp_path / "orl.json")
    assert again == manifest and again.digest == manifest.digest
    assert [path.name for path in tmp_path.iterdir()] == ["orl.json"]


def test_edited_or_foreign_files_are_refused(tmp_path):
    path = tmp_path / "orl.json"
    orl_manifest().write(path)
    text = path.read_text()
    fields = json.loads(text)
    fields["private"][0] = "s40"
    path.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="digest is"):
        Manifest.read(path)
    path.write_text(json.dumps({"private": []}))
    with pytest.raises(ValueError, match="must have the fields dataset, digest"):
        Manifest.read(path)
    path.write_text(text[:-10])
    with pytest.raises(ValueError, match="is not JSON"):
        Manifest.read(path)
    with pytest.raises(FileNotFoundError):
        Manifest.read(tmp_path / "absent.json")


def test_overlapping_identities_are_named(tmp_path):
    images = toy()
    with pytest.raises(ValueError, match="private and public overlap: b, c; they must be disjoint"):
        toy_manifest(images, public=["a", "b", "c"])
    bad = toy_manifest(images)._replace(public=("e",))
    with pytest.raises(ValueError, match="overlap: e"):
        split(images, bad)
    with pytest.raises(ValueError, match="overlap: e"):
        bad.write(tmp_path / "bad.json")


def test_contradictions_are_refused():
    images = toy()
    manifest = toy_manifest(images)
    with pytest.raises(ValueError, match=r"test: row \d+ of class 'e' is also in train"):
        split(images, manifest._replace(test=(manifest.train[0][:1], *manifest.test[1:])))
    with pytest.raises(ValueError, match="validation: has 2 classes, must have 3"):
        split(images, manifest._replace(validation=manifest.validation[:2]))
    with pytest.raises(ValueError, match="train: class 'b' has no rows"):
        split(images, manifest._replace(train=(manifest.train[0], (), manifest.train[2])))
    with pytest.raises(ValueError, match="public: a class is named twice"):
        split(images, manifest._replace(public=("a", "a")))
    with pytest.raises(ValueError, match="private: names no class"):
        split(images, manifest._replace(private=()))


def test_manifest_for_other_images_is_refused():
    images = toy()
    manifest = toy_manifest(images)
    with pytest.raises(ValueError, match="classes s1, s2, .*, s40 are not in the images"):
        split(images, orl_manifest())
    with pytest.raises(ValueError, match="out of range, there are 20 images"):
        split(Images(images.images[:20], images.labels[:20], images.names), manifest)
    moved = Images(images.images, np.roll(images.labels, 1), images.names)
    with pytest.raises(ValueError, match="is of class .*, the manifest says .*other images"):
        split(moved, manifest)


def test_small_classes_and_bad_shares_are_refused():
    images = toy(photos=3)
    with pytest.raises(ValueError, match="class 'e' has 3 photos, too few: validation gets none"):
        toy_manifest(images)
    with pytest.raises(ValueError, match=r"test: 1\.5 is out of range"):
        toy_manifest(images, test=1.5)
    with pytest.raises(ValueError, match="leave nothing to train on"):
        toy_manifest(images, test=0.6, validation=0.5)
    with pytest.raises(ValueError, match="private: 'x' is not a class of toy"):
        toy_manifest(images, private=["x"])
    with pytest.raises(ValueError, match="public: 'x' is not a class of toy"):
        toy_manifest(toy(), public=["x"])
    assert toy_manifest(images, validation=0.0, test=0.34).validation == ((), (), ())


def test_public_may_come_from_another_set():
    images = toy()
    parts = split(images, toy_manifest(images, public=[]))
    assert parts.public.names == () and parts.public.images.shape == (0, 2, 2, 1)


def test_orl_manifest_has_seven_one_two_photos_per_person():
    manifest = orl_manifest()
    assert manifest.private == tuple(f"s{i}" for i in range(1, 21))
    assert manifest.public == tuple(f"s{i}" for i in range(21, 41))
    for person in range(20):
        parts = [getattr(manifest, part)[person] for part in PARTS]
        assert [len(part) for part in parts] == [7, 1, 2]
        assert sorted(sum(parts, ())) == list(range(10 * person, 10 * person + 10))
    assert orl_manifest(1).test != manifest.test


@pytest.mark.needs_data
def test_orl_split_has_the_layout_of_the_quickstart():
    parts = split(orl.load(), orl_manifest())
    assert [len(part.images) for part in parts] == [140, 20, 40, 200]
    assert parts.train.images.shape[1:] == (56, 46, 1)


@pytest.mark.needs_data
def test_mnist_split_locks_the_official_test_set():
    digits = mnist.load()
    manifest = mnist_manifest()
    parts = split(digits, manifest)
    assert parts.train.names == tuple("56789") and parts.public.names == tuple("01234")
    assert np.bincount(parts.test.labels).tolist() == [892, 958, 1028, 974, 1009]
    assert min(min(rows) for rows in manifest.test) >= mnist.TEST.start
    assert max(max(rows) for part in (manifest.train, manifest.validation) for rows in part) < mnist.TEST.start
    official = np.array([5421, 5918, 6265, 5851, 5949])
    carved = np.bincount(parts.validation.labels)
    assert np.array_equal(carved + np.bincount(parts.train.labels), official)
    assert np.abs(carved - 0.1 * official).max() <= 0.5
    assert sum(len(part.images) for part in parts) == 70_000
    assert mnist_manifest() == manifest

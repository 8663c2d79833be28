import json
import os
import shutil
from collections import namedtuple

import numpy as np
import pytest
from PIL import Image

from jaxmia.data import celeba, decoded, image_folder
from jaxmia.data.decode import decode
from jaxmia.data.folders import loose_pictures


def picture(path, rows=24, columns=18, color=(200, 40, 90), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (columns, rows), color).save(path, **options)
    return path


@pytest.fixture
def collection(tmp_path):
    root = tmp_path / "photos"
    for number, name in enumerate(["zoe", "adam"]):
        for photo in ["10.png", "2.png", "sub/1.png"]:
            picture(root / name / photo, color=(number * 100, 0, len(photo)))
    (root / "adam" / "notes.txt").write_text("not a picture")
    (root / "adam" / "._2.png").write_text("resource fork")
    (root / ".hidden").mkdir()
    return root


def test_folders_become_sorted_labels_and_a_memmap(collection, tmp_path):
    data = image_folder(collection, 8, cache=tmp_path / "cache")
    assert isinstance(data.images, np.memmap) and data.images.shape == (6, 8, 8, 3)
    assert data.names == ("adam", "zoe") and data.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.images[:, 0, 0].tolist() == [[100, 0, n] for n in (6, 5, 9)] + [[0, 0, n] for n in (6, 5, 9)]
    index = json.loads(next((tmp_path / "cache" / "decoded").glob("*.json")).read_text())
    assert index["paths"] == [f"{name}/{photo}" for name in data.names for photo in ("10.png", "2.png", "sub/1.png")]
    assert index["labels"] == data.labels.tolist() and len(index["listing_sha256"]) == 64


def test_pictures_are_decoded_once_until_something_changes(collection, tmp_path, monkeypatch):
    calls = []

    def counting(*args, **options):
        calls.append(args[0])
        return decode(*args, **options)

    monkeypatch.setattr(decoded, "decode", counting)
    cache = tmp_path / "cache"
    first = image_folder(collection, 8, cache=cache)
    assert len(calls) == 6
    again = image_folder(collection, 8, cache=cache)
    assert len(calls) == 6 and np.array_equal(first.images, again.images)
    image_folder(collection, 9, cache=cache)
    assert len(calls) == 12
    picture(collection / "adam" / "2.png", color=(1, 2, 3))
    changed = image_folder(collection, 8, cache=cache)
    assert len(calls) == 18 and changed.images[1, 0, 0].tolist() == [1, 2, 3]


def test_interrupted_decoding_leaves_no_trace(collection, tmp_path):
    (collection / "zoe" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(ValueError, match=r"zoe/2\.png"):
        image_folder(collection, 8, cache=tmp_path / "cache")
    assert list((tmp_path / "cache" / "decoded").iterdir()) == []


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "tif", "bmp", "webp", "ppm"])
def test_truncated_pictures_are_named(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"half.{suffix}"
    Image.fromarray(noise).save(path)
    assert decode(path, 16).shape == (16, 16, 3)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=rf"picture .*half\.{suffix}"):
        decode(path, 16)


def test_text_with_the_suffix_of_a_picture_is_named(tmp_path):
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    with pytest.raises(ValueError, match=r"page\.jpg"):
        decode(tmp_path / "page.jpg", 8)
    with pytest.raises(FileNotFoundError):
        decode(tmp_path / "absent.jpg", 8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path, orientation):
    upright = np.zeros((40, 40, 3), np.uint8)
    upright[:20, :20, 0] = 250  # red top left, green top right, blue bottom left
    upright[:20, 20:, 1] = 250
    upright[20:, :20, 2] = 250
    stored = {  # how a camera stores what the tag says how to turn
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(decode(tmp_path / "turned.png", 40), upright)


def test_color_modes_become_rgb_or_grey(tmp_path):
    cases = {
        "grey.png": (Image.new("L", (8, 8), 77), [77, 77, 77]),
        "cmyk.tif": (Image.new("CMYK", (8, 8), (0, 255, 255, 0)), [255, 0, 0]),
        "clear.png": (Image.new("RGBA", (8, 8), (10, 20, 30, 0)), [255, 255, 255]),
        "half.png": (Image.new("LA", (8, 8), (0, 51)), [204, 204, 204]),
        "bits.png": (Image.new("1", (8, 8), 1), [255, 255, 255]),
        "deep.png": (Image.fromarray(np.full((8, 8), 40_000, np.uint16)), [155, 155, 155]),
        "palette.gif": (Image.new("RGB", (8, 8), (9, 8, 7)).quantize(4), [9, 8, 7]),
    }
    for name, (image, expected) in cases.items():
        image.save(tmp_path / name)
        assert decode(tmp_path / name, 4)[1, 2].tolist() == expected, name
    assert decode(tmp_path / "clear.png", 4, channels=1).shape == (4, 4, 1)
    Image.fromarray(np.ones((8, 8), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match=r"float\.tif: pixel mode F"):
        decode(tmp_path / "float.tif", 4)


def test_oversized_pictures_are_refused_before_decompression(tmp_path):
    path = tmp_path / "bomb.png"
    Image.new("1", (8000, 7000)).save(path)  # 56 M pixels in a few kilobytes
    assert path.stat().st_size < 100_000
    with pytest.raises(ValueError, match=r"bomb\.png: 8000x7000 pixels, more than the limit"):
        decode(path, 8)
    Image.new("1", (20_000, 10_000)).save(path)  # Pillow itself refuses this one
    with pytest.raises(ValueError, match=r"bomb\.png"):
        decode(path, 8)


def test_center_square_is_taken(tmp_path):
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert (decode(tmp_path / "wide.png", 5) == 255).all()
    with pytest.raises(ValueError, match=r"wide\.png: has 10x30 pixels, too few for a crop of 11"):
        decode(tmp_path / "wide.png", 5, crop=11)


def test_bad_collections_are_refused(collection, tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        image_folder(tmp_path / "absent", 8)
    with pytest.raises(ValueError, match="no class folders"):
        image_folder(collection / "zoe" / "sub", 8)
    with pytest.raises(ValueError, match="size: 0"):
        image_folder(collection, 0)
    with pytest.raises(ValueError, match="channels: 4"):
        image_folder(collection, 8, channels=4)
    (collection / "empty").mkdir()
    with pytest.raises(ValueError, match="empty has no pictures"):
        image_folder(collection, 8)


def test_cache_of_a_wrong_shape_and_a_full_disk_are_refused(collection, tmp_path, monkeypatch):
    image_folder(collection, 8, cache=tmp_path)
    np.save(next((tmp_path / "decoded").glob("*.npy")), np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"expected uint8 \(6, 8, 8, 3\); remove it"):
        image_folder(collection, 8, cache=tmp_path)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(100, 99, 1))
    with pytest.raises(OSError, match="MiB free, the decoded pictures need"):
        image_folder(collection, 9, cache=tmp_path)


@pytest.fixture
def celebrities(tmp_path):
    root = tmp_path / "celeba"
    identities, parts = [], []
    for number, (identity, part) in enumerate([(2880, 0), (7, 0), (2880, 0), (5, 1), (12, 2)], start=1):
        name = f"{number:06d}.jpg"
        pixels = np.full((218, 178, 3), 255, np.uint8)
        pixels[55:163, 35:143] = 20 * number  # exactly the 108 x 108 center
        path = root / "img_align_celeba" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=100, subsampling=0)
        identities.append(f"{name} {identity}")
        parts.append(f"{name} {part}")
    (root / "identity_CelebA.txt").write_text("\n".join(identities) + "\n")
    (root / "list_eval_partition.txt").write_text("\n".join(parts) + "\n")
    return root


def test_celeba_reads_lists_and_crops_the_center(celebrities, tmp_path):
    data = celeba(celebrities, 64, cache=tmp_path / "cache")
    assert data.names == ("5", "7", "12", "2880")
    assert [data.names[label] for label in data.labels] == ["2880", "7", "2880", "5", "12"]
    assert data.images.shape == (5, 64, 64, 3)
    for number, image in enumerate(data.images, start=1):
        assert np.abs(image[4:-4, 4:-4].astype(int) - 20 * number).max() <= 2
    training = celeba(celebrities, 64, parts=["train"], cache=tmp_path / "cache")
    assert training.names == ("7", "2880") and len(training.images) == 3
    assert np.array_equal(training.images, data.images[:3])


def test_celeba_names_what_is_wrong(celebrities, tmp_path):
    lists = celebrities / "list_eval_partition.txt"
    good = lists.read_text()
    with pytest.raises(ValueError, match=r"parts: \('val',\)"):
        celeba(celebrities, 64, parts=("val",))
    lists.write_text(good + "000006.jpg 0\n")
    with pytest.raises(ValueError, match=r"000006\.jpg is in only one of"):
        celeba(celebrities, 64)
    lists.write_text(good + "000006.jpg\n")
    with pytest.raises(ValueError, match=r"list_eval_partition\.txt, line 6"):
        celeba(celebrities, 64)
    lists.write_text(good.replace("000005.jpg 2", "000005.jpg 3"))
    with pytest.raises(ValueError, match=r"000005\.jpg has part 3"):
        celeba(celebrities, 64)
    lists.write_text(good)
    picture(celebrities / "img_align_celeba" / "000002.jpg", rows=178, columns=218)
    with pytest.raises(ValueError, match=r"000002\.jpg: has 178x218 pixels .* must have 218x178"):
        celeba(celebrities, 64, cache=tmp_path / "cache")
    (celebrities / "img_align_celeba" / "000002.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"000002\.jpg"):
        celeba(celebrities, 64, cache=tmp_path / "cache")
    lists.unlink()
    with pytest.raises(FileNotFoundError, match=r"list_eval_partition\.txt is missing"):
        celeba(celebrities, 64)


def test_loose_pictures_are_of_one_class_and_may_be_a_seeded_few(collection, tmp_path):
    cache = tmp_path / "cache"
    data = loose_pictures(collection, 8, cache=cache)
    assert data.images.shape == (6, 8, 8, 3) and data.names == ("photos",) and not data.labels.any()
    few, same, other = (loose_pictures(collection, 8, most=3, seed=seed, cache=cache).images for seed in (0, 0, 2))
    assert len(few) == 3 and np.array_equal(few, same) and not np.array_equal(few, other)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty has no pictures"):
        loose_pictures(tmp_path / "empty", 8, cache=cache)


def test_a_crop_is_cut_before_the_picture_is_resized(tmp_path):
    pixels = np.zeros((20, 16, 3), np.uint8)
    pixels[6:14, 4:12] = 200
    (tmp_path / "photos" / "eva").mkdir(parents=True)
    Image.fromarray(pixels).save(tmp_path / "photos" / "eva" / "1.png")
    cut = image_folder(tmp_path / "photos", 4, crop=8, cache=tmp_path / "cache").images
    whole = image_folder(tmp_path / "photos", 4, cache=tmp_path / "cache").images
    assert np.all(cut == 200) and whole.min() < 50
    assert np.array_equal(loose_pictures(tmp_path / "photos", 4, crop=8, cache=tmp_path / "cache").images, cut)
    with pytest.raises(ValueError, match="crop: 0"):
        image_folder(tmp_path / "photos", 4, crop=0, cache=tmp_path / "cache")


@pytest.mark.parametrize("parts", [("train", "val", "test"), ("Train", "valid"), ("training", "testing"), ("train",)])
def test_a_division_is_not_taken_for_people(parts, tmp_path):
    root = tmp_path / "layout"
    for part in parts:
        for name in ("anna", "ben", "cem", "dora"):
            picture(root / part / name / "1.png")
    with pytest.raises(ValueError, match="which look like a division of pictures of anna, ben, cem and others") as told:
        image_folder(root, 8, cache=tmp_path / "cache")
    assert str(root / sorted(parts)[0]) in str(told.value)  # what to write in its place
    assert image_folder(root / parts[0], 8, cache=tmp_path / "cache").names == ("anna", "ben", "cem", "dora")


def test_classes_with_a_name_like_that_among_others_are_classes(tmp_path):
    for name in ("train", "plane", "ship"):
        picture(tmp_path / "vehicles" / name / "1.png")
    assert image_folder(tmp_path / "vehicles", 8, cache=tmp_path / "cache").names == ("plane", "ship", "train")


def break_one(path):
    path.write_bytes(path.read_bytes()[:40])
    return path


def test_all_broken_pictures_are_named_at_once(collection, tmp_path):
    wrong = [break_one(collection / name) for name in ("adam/10.png", "zoe/2.png", "zoe/sub/1.png")]
    with pytest.raises(ValueError, match=r"3 of 6 pictures cannot be read.*a share of 0\.5 be left out") as told:
        image_folder(collection, 8, cache=tmp_path / "cache")
    assert all(f"picture {path}: " in str(told.value) for path in wrong)
    with pytest.raises(ValueError, match="3 of 6 pictures cannot be read"):
        image_folder(collection, 8, broken=0.4, cache=tmp_path / "cache")
    assert list((tmp_path / "cache" / "decoded").iterdir()) == []


def test_a_share_of_broken_pictures_is_left_out_and_counted(collection, tmp_path):
    cache = tmp_path / "cache"
    whole = image_folder(collection, 8, cache=cache)
    wrong = [break_one(collection / name) for name in ("adam/10.png", "zoe/2.png")]
    for _ in range(2):  # decoded, then from the cache
        data = image_folder(collection, 8, broken=0.34, cache=cache)
        assert np.array_equal(data.images, whole.images[[1, 2, 3, 5]]) and data.labels.tolist() == [0, 0, 1, 1]
        assert data.notes == ("2 of 6 pictures cannot be read and are left out: adam/10.png, zoe/2.png.",)
    with pytest.raises(ValueError, match="2 of 6 pictures cannot be read") as told:  # though they are in the cache
        image_folder(collection, 8, broken=0.3, cache=cache)
    assert all(str(path) in str(told.value) for path in wrong)
    assert loose_pictures(collection, 8, broken=0.34, cache=cache).images.shape[0] == 4
    break_one(collection / "zoe" / "10.png")
    break_one(collection / "zoe" / "sub" / "1.png")
    with pytest.raises(ValueError, match="class folder .*zoe has no picture that can be read"):
        image_folder(collection, 8, broken=0.9, cache=cache)
    with pytest.raises(ValueError, match=r"broken: 1.0; legal is a share of at least 0 and below 1"):
        image_folder(collection, 8, broken=1.0, cache=cache)


def test_formats_that_are_not_read_are_counted(collection, tmp_path):
    for name in ("adam/a.heic", "adam/b.HEIC", "zoe/c.avif"):
        (collection / name).write_bytes(b"0")
    data = image_folder(collection, 8, cache=tmp_path / "cache")
    assert data.notes == (
        "Pictures in formats that are not read are passed over: 1 .avif, 2 .heic, such as adam/a.heic.",
    )
    (collection / "ivo").mkdir()
    (collection / "ivo" / "1.heic").write_bytes(b"0")
    with pytest.raises(ValueError, match=r"ivo has no pictures in a format that is read, but 1 \.heic; save them as"):
        image_folder(collection, 8, cache=tmp_path / "cache")


def test_jpeg_files_of_any_name_are_read(collection, tmp_path):
    for name in ("adam/a.jfif", "adam/b.jpe", "zoe/c.JFIF"):
        picture(collection / name, format="JPEG")
    assert len(image_folder(collection, 8, cache=tmp_path / "cache").labels) == 9


def test_what_an_operating_system_leaves_is_passed_over(collection, tmp_path):
    (collection / "__MACOSX").mkdir()
    picture(collection / "adam" / ".thumbnails" / "10.png")
    picture(collection / "adam" / "__MACOSX" / "10.png")
    data = image_folder(collection, 8, cache=tmp_path / "cache")
    assert data.names == ("adam", "zoe") and len(data.labels) == 6 and data.notes == ()


def test_a_folder_that_may_not_be_read_says_so(collection, tmp_path, monkeypatch):
    real = os.scandir

    def scandir(path="."):  # permissions do not stop the superuser, who may run the tests
        if os.fspath(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    for read in (image_folder, loose_pictures):
        with pytest.raises(PermissionError, match=r"root: folder .*sub cannot be read \(Permission denied\)"):
            read(collection, 8, cache=tmp_path / "cache")


def test_gray_and_oblong_pictures(tmp_path):
    pixels = np.zeros((24, 30, 3), np.uint8)
    pixels[:, 9:21] = 200  # the middle of the proportions 24 : 12
    (tmp_path / "photos" / "eva").mkdir(parents=True)
    Image.fromarray(pixels).save(tmp_path / "photos" / "eva" / "1.png")
    cache = tmp_path / "cache"
    gray = image_folder(tmp_path / "photos", (12, 6), channels=1, cache=cache).images
    assert gray.shape == (1, 12, 6, 1) and np.all(gray == 200)
    wide = image_folder(tmp_path / "photos", (4, 10), cache=cache).images
    assert wide.shape == (1, 4, 10, 3) and wide[0, 0, 0, 0] == 0 and wide[0, 0, 5, 0] == 200
    assert loose_pictures(tmp_path / "photos", (12, 6), crop=(20, 10), cache=cache).images.min() == 200
    with pytest.raises(ValueError, match=r"crop: 8; legal with a size of 12x6 is \[rows, columns\]"):
        image_folder(tmp_path / "photos", (12, 6), crop=8, cache=cache)
    with pytest.raises(ValueError, match=r"has 24x30 pixels, too few for a crop of 25x12"):
        image_folder(tmp_path / "photos", (12, 6), crop=(25, 12), cache=cache)
    with pytest.raises(ValueError, match=r"size: \(12, 0\) is out of range"):
        image_folder(tmp_path / "photos", (12, 0), cache=cache)

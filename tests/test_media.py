import struct
import sys

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from likeness import media
from likeness.errors import MediaError


@pytest.fixture(scope="module")
def picture():
    return media.resize(astronaut(), 96, 64)


@pytest.fixture(scope="module")
def frames(picture):
    return np.stack([np.roll(picture, 3 * shift, axis=1) for shift in range(6)])


def difference(a, b):
    return np.abs(a.astype(float) - b.astype(float)).mean()


@pytest.mark.parametrize(
    ("suffix", "most"),
    [("png", 0), ("bmp", 0), ("tiff", 0), ("jpg", 5), ("webp", 6), ("avif", 6), ("gif", 12)],
)
def test_common_formats_come_back(tmp_path, picture, suffix, most):
    media.write_image(tmp_path / f"new/picture.{suffix}", picture)
    assert difference(media.read_image(tmp_path / f"new/picture.{suffix}"), picture) <= most


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, picture, orientation):
    # For each tag, how a camera that writes it has laid the upright picture down.
    laid = {
        1: picture,
        2: picture[:, ::-1],
        3: picture[::-1, ::-1],
        4: picture[::-1],
        5: picture.swapaxes(0, 1),
        6: np.rot90(picture, 1),
        7: picture[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(picture, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(laid)).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(media.read_image(tmp_path / "turned.png"), picture)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA", "RGBA", "I;16", "I", "F"])
def test_every_pixel_layout_becomes_rgb(tmp_path, picture, mode):
    gray = picture.mean(axis=2)
    if mode in ("I;16", "I"):
        image = Image.fromarray((gray * 257).astype(np.uint16 if mode == "I;16" else np.int32))
    elif mode == "F":
        image = Image.fromarray((gray / 255).astype(np.float32))
    else:
        image = Image.fromarray(picture).convert(mode)
    image.save(tmp_path / "picture.tiff")
    result = media.read_image(tmp_path / "picture.tiff")
    assert (result.shape, result.dtype) == (picture.shape, np.uint8)
    expected = picture if mode in ("CMYK", "RGBA", "P") else gray[..., None].repeat(3, axis=2)
    assert difference(result, expected) < {"1": 120, "P": 16}.get(mode, 3)


def test_sixteen_bit_png_keeps_its_range(tmp_path):
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    result = media.read_image(tmp_path / "ramp.png")
    assert difference(result[..., 0], ramp / 257) < 1


def test_transparency_is_laid_over_white(tmp_path):
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:4, :, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "alpha.png")
    result = media.read_image(tmp_path / "alpha.png")
    assert (result[:4] == 0).all()
    assert (result[4:] == 255).all()


def png_of_size(width, height):
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", width, height, 8, 2, 0, 0, 0)
    import zlib

    return header + struct.pack(">I", zlib.crc32(header[12:])) + b"\0\0\0\0IDAT5\xaf\x06\x1e"


@pytest.fixture
def spoiled(tmp_path, picture, frames):
    """One file of each kind that must be refused."""
    media.write_image(tmp_path / "whole.jpg", picture)
    media.write_image(tmp_path / "whole.png", picture)
    media.write_video(tmp_path / "video.mp4", frames, 8)
    (tmp_path / "folder").mkdir()
    (tmp_path / "zero.jpg").touch()
    (tmp_path / "text.png").write_text("This is not a picture.")
    (tmp_path / "truncated.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:900])
    (tmp_path / "truncated.png").write_bytes((tmp_path / "whole.png").read_bytes()[:5000])
    (tmp_path / "header.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (tmp_path / "large.png").write_bytes(png_of_size(16000, 8000))
    (tmp_path / "bomb.png").write_bytes(png_of_size(60000, 60000))
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))
    (tmp_path / "renamed.jpg").write_bytes((tmp_path / "video.mp4").read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.jpg", "does not exist"),
        ("folder", "is a folder"),
        ("zero.jpg", "zero bytes"),
        ("text.png", "not a picture"),
        ("truncated.jpg", "truncated"),
        ("truncated.png", "truncated"),
        ("header.jpg", "truncated"),
        ("large.png", "16000 x 8000 pixels.*110 megapixels"),
        ("bomb.png", "110 megapixels"),
        ("phone.heic", "HEI[CF]"),
        ("video.mp4", "is a video"),
        ("renamed.jpg", "is a video"),
    ],
)
def test_a_file_that_is_no_picture_says_what_it_is(spoiled, name, message):
    with pytest.raises(MediaError, match=message):
        media.read_image(spoiled / name)


def test_heic_names_the_extra_that_reads_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))
    with pytest.raises(MediaError, match=r"pip install likeness\[heic\]"):
        media.read_image(tmp_path / "phone.heic")


def test_heic_comes_back(tmp_path, picture):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    Image.fromarray(picture).save(tmp_path / "phone.heic", quality=90)
    assert difference(media.read_image(tmp_path / "phone.heic"), picture) < 6


def test_heic_is_not_turned_by_exif(tmp_path, picture):
    """HEIF has its own rotation, which the decoder applies; phones repeat it in EXIF."""
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture).save(tmp_path / "phone.heic", quality=90, exif=exif)
    assert difference(media.read_image(tmp_path / "phone.heic"), picture) < 6


@pytest.mark.parametrize("brand", [b"avif", b"mif1"])
def test_avif_is_known_by_any_of_its_brands(tmp_path, picture, brand):
    Image.fromarray(picture).save(tmp_path / "picture.avif")
    data = bytearray((tmp_path / "picture.avif").read_bytes())
    assert b"avif" in data[16 : int.from_bytes(data[:4])], "avif is among the compatible brands"
    data[8:12] = brand
    (tmp_path / "brand.png").write_bytes(data)
    assert difference(media.read_image(tmp_path / "brand.png"), picture) < 6


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.mp4", "does not exist"),
        ("folder", "is a folder"),
        ("zero.jpg", "zero bytes"),
        ("text.png", "not a video"),
        ("whole.jpg", "is a picture"),
        ("head.mp4", "damaged or truncated"),
        ("half.mp4", "damaged or truncated"),
    ],
)
def test_a_file_that_is_no_video_says_what_it_is(spoiled, name, message):
    whole = (spoiled / "video.mp4").read_bytes()
    (spoiled / "head.mp4").write_bytes(whole[:300])
    (spoiled / "half.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MediaError, match=message):
        media.read_video(spoiled / name)


def test_video_comes_back_nearly_as_it_went(tmp_path):
    smooth = np.stack([media.resize(astronaut()[40:200, 140:300], 64, 64)] * 5)
    media.write_video(tmp_path / "a.mp4", smooth, 8)
    frames, fps = media.read_video(tmp_path / "a.mp4")
    assert fps == 8
    assert frames.shape == smooth.shape
    assert difference(frames, smooth) < 6


def test_the_same_frames_give_the_same_bytes(tmp_path, frames):
    for name in ("a.mp4", "b.mp4"):
        media.write_video(tmp_path / name, frames, 8, {"seed": 7})
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_odd_sizes_gain_an_edge_pixel(tmp_path, frames):
    media.write_video(tmp_path / "odd.mp4", frames[:, :63, :95], 7.5)
    read, fps = media.read_video(tmp_path / "odd.mp4", max_frames=2)
    assert read.shape == (2, 64, 96, 3)
    assert fps == 7.5


def test_metadata_lies_inside_the_video(tmp_path, frames):
    record = {"prompt": 'a "woman" img\nwaves', "seed": 7, "letters": "äß漢"}
    media.write_video(tmp_path / "a.mp4", frames, 8, record)
    media.write_video(tmp_path / "bare.mp4", frames, 8)
    assert media.read_metadata(tmp_path / "a.mp4") == record
    assert media.read_metadata(tmp_path / "bare.mp4") == {}


def test_frames_that_are_no_video_are_refused(tmp_path, frames):
    for wrong, path in (
        (frames[0], "a.mp4"),
        (frames / 255, "a.mp4"),
        (frames[:0], "a.mp4"),
        (frames, "a.gif"),
    ):
        with pytest.raises(MediaError):
            media.write_video(tmp_path / path, wrong, 8)


def test_contact_sheet_lays_pictures_where_they_belong(picture):
    red = np.full((10, 10, 3), (255, 0, 0), np.uint8)
    sheet = media.contact_sheet(
        [[red, picture], [picture]], ["a row with a label", "b"], cell_px=32, gap_px=2, label_px=80
    )
    assert sheet.shape == (2 * 34 + 2, 80 + 2 * 34 + 2, 3)
    assert (sheet[10, 80 + 2 + 16] == (255, 0, 0)).all()
    assert (sheet[:34, :80] < 100).any(), "the label is drawn"
    with pytest.raises(MediaError):
        media.contact_sheet([[red]], ["a", "b"])


@pytest.mark.slow
def test_the_same_frames_give_the_same_bytes_every_time(tmp_path):
    """x264's macroblock trees give other bytes once in 40 to 200 times."""
    rows = np.linspace(0, 255, 96)[None, :] + 60 * np.sin(np.arange(96) / 7)[:, None]
    picture = np.repeat(np.clip(rows, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
    frames = np.stack([np.roll(picture, 5 * number, axis=1) for number in range(5)])
    found = set()
    for _ in range(500):
        media.write_video(tmp_path / "clip.mp4", frames, 8.0)
        found.add((tmp_path / "clip.mp4").read_bytes())
    assert len(found) == 1

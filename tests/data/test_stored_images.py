"""Images in object storage are the same data set as the same shards in a folder, read in few requests."""

import gzip
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cskd_pipeline.data import build_index, open_index, open_split, resolve_data
from cskd_pipeline.data.images import Span, stretches
from cskd_pipeline.data.pack import pack
from cskd_pipeline.data.sample_index import COLUMNS
from cskd_pipeline.errors import DataError, RetryError
from cskd_pipeline.storage import open_storage


@pytest.fixture
def upload(s3):
    """upload(folder) -> the address of a copy of its files."""

    def write(folder):
        address = f"{s3}/sets/{folder.name}"
        for file in folder.iterdir():
            open_storage(address).write(file.name, file.read_bytes())
        return address

    return write


@pytest.fixture
def requests(s3, s3_server):
    """requests() -> those for bytes, and those for listings, that have come in since it was called before."""

    def taken():
        made = [path for method, path in s3_server.requests if method == "GET"]
        s3_server.requests.clear()
        listings = [path for path in made if path == f"/{s3.removeprefix('s3://')}"]
        return len(made) - len(listings), len(listings)

    return taken


@pytest.mark.parametrize("check", [False, True])
def test_an_index_is_equal_to_that_of_a_folder(check, as_tars, upload):
    local = build_index(resolve_data(str(as_tars)), "train", check=check)
    remote = build_index(resolve_data(upload(as_tars)), "train", check=check)
    assert (remote.digest, remote.name, remote.classes) == (local.digest, "pets", ("a", "b"))
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(remote, name), getattr(local, name))
    assert remote.fingerprint != local.fingerprint and remote.folder != local.folder
    assert remote.remote and not local.remote
    samples = range(len(local))
    assert [remote.read(sample) for sample in samples] == [local.read(sample) for sample in samples]
    twice = [7, 2, *samples, 2]
    assert list(remote.read_all(twice)) == [local.read(sample) for sample in twice] == list(local.read_all(twice))
    np.testing.assert_array_equal(remote.decode(3), local.decode(3))


def test_indexing_takes_a_request_a_shard_and_a_few_listings(as_tars, upload, requests):
    address = upload(as_tars)
    requests()
    first = open_split(address, "train")
    of_bytes, listings = requests()
    assert of_bytes == 3 + 1, "the shards, and the class list"
    assert listings <= 9
    assert open_split(address, "train").folder == first.folder
    assert requests() == (0, 3)


def test_images_side_by_side_share_a_request(as_tars, upload, requests):
    index = open_split(upload(as_tars), "train")
    requests()
    assert len(list(index.read_all(range(len(index))))) == 10
    assert requests() == (3, 0)


@given(st.lists(st.builds(Span, st.sampled_from("ab"), st.integers(0, 9 << 20), st.integers(0, 3 << 20)), max_size=40))
def test_stretches_hold_every_image_once_and_little_else(spans):
    found = stretches(spans)
    assert sorted(span for stretch in found for span in stretch.spans) == sorted(set(spans))
    for (file, start, length), joined in found:
        ends = [span.offset + span.length for span in joined]
        assert {span.file for span in joined} == {file}
        assert (start, start + length) == (min(span.offset for span in joined), max(ends))
        assert len(joined) == 1 or length <= 2 << 20
        gaps = [span.offset - max(ends[:number]) for number, span in enumerate(joined) if number]
        assert max(gaps, default=0) <= 32 << 10
    first = [min(spans.index(span) for span in stretch.spans) for stretch in found]
    assert first == sorted(first)


def test_a_split_can_be_packed_from_there(as_tars, upload, tmp_path):
    index = open_split(upload(as_tars), "train")
    pack(index, tmp_path / "packed")
    assert open_split(str(tmp_path / "packed"), "train").digest == index.digest


def test_a_header_behind_a_large_profile_is_found(tmp_path, upload, write_tar, picture):
    data = picture(1, 30, 40)
    padding = b"\xff\xe2\xff\xff" + bytes(0xFFFD)  # an APP2 segment, as colour profiles are
    folder = tmp_path / "pets"
    write_tar(folder / "train-0.tar", {"a.jpg": data[:2] + padding + data[2:], "a.cls": b"0"})
    index = open_split(upload(folder), "train")
    assert (index.heights.tolist(), index.widths.tolist()) == ([30], [40])


def test_new_data_gets_a_new_index_and_makes_one_that_was_named_too_old(as_tars, upload, tmp_path, write_tar, picture):
    address = upload(as_tars)
    assert len(build_index(resolve_data(address), "train", out=tmp_path / "mine")) == 10
    assert len(open_index(tmp_path / "mine")) == 10
    file = write_tar(as_tars / "train-1.tar", {"new.png": picture(99, kind="PNG"), "new.cls": b"1"})
    open_storage(address).write(file.name, file.read_bytes())
    assert len(open_split(address, "train")) == 8
    with pytest.raises(DataError, match=f"is older than the data in {address}"):
        open_index(tmp_path / "mine")


def test_a_shard_that_is_gone_or_shorter_says_to_index_again(as_tars, upload):
    address = upload(as_tars)
    index = open_split(address, "train")
    file, start = index.file(4).rpartition("/")[2], int(index.offsets[4])
    for length in (start + int(index.lengths[4]) - 10, start, start - 100):
        open_storage(address).write(file, (as_tars / file).read_bytes()[:length])
        for read in (index.read, lambda sample: list(index.read_all([sample]))):
            with pytest.raises(DataError, match=rf"sample '.*': {address}/{file} ends before.*index it again"):
                read(4)
    open_storage(address).delete(file)
    with pytest.raises(DataError, match=rf"{address}/{file} is gone; the data changed.*index it again"):
        index.decode_parts(4, [])


BROKEN = {
    "compressed": (gzip.compress, r"is compressed \(gzip\)"),
    "cut short": (lambda data: data[: len(data.rstrip(b"\0"))], "copy it again"),
    "no tar": (lambda data: b"<html>not found</html>" * 100, "not an intact tar file"),
    "empty": (lambda data: b"", "not an intact tar file"),
    "joined": (lambda data: data + data, "more data behind its end mark"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_shard_that_is_broken_is_named(case, as_tars, upload):
    harm, message = BROKEN[case]
    file = as_tars / "train-1.tar"
    file.write_bytes(harm(file.read_bytes()))
    address = upload(as_tars)
    with pytest.raises(DataError, match=rf"{address}/train-1\.tar.*{message}|{message}.*train-1\.tar"):
        open_split(address, "train")


def test_a_broken_image_is_named(as_tars, upload, write_tar):
    write_tar(as_tars / "train-9.tar", {"bad.jpg": b"no image", "bad.cls": b"0"})
    address = upload(as_tars)
    with pytest.raises(DataError, match=rf"1 of 11 images are broken: sample 'bad' of {address}/train-9\.tar"):
        open_split(address, "train")


def test_access_that_is_denied_asks_for_credentials(as_tars, upload, s3_server):
    address = upload(as_tars)
    index = open_split(address, "train")
    s3_server.fault = lambda method, path: 403
    for use in (lambda: open_split(address, "train"), lambda: index.read(0), lambda: next(index.read_all([0]))):
        with pytest.raises(RetryError, match="access is denied; give credentials"):
            use()


def test_a_server_that_fails_now_and_then_is_asked_again(as_tars, upload, s3_server):
    address = upload(as_tars)
    turns = itertools.count()
    s3_server.fault = lambda method, path: 503 if next(turns) % 5 == 1 else None
    index = open_split(address, "train")
    assert list(index.read_all(range(10))) == [index.read(sample) for sample in range(10)]

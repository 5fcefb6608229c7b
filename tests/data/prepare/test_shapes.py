"""Every layout keeps bytes, classes and splits, against files written here by csv, tarfile and pyarrow."""

import csv
import io
import json
import os
import shutil
import tarfile
from collections import Counter

import pyarrow
import pytest
from pyarrow import parquet

from imagenet_repro.config import Data
from imagenet_repro.data.prepare import shapes
from imagenet_repro.data.prepare.listing import Options
from imagenet_repro.data.prepare.prepare_dataset import prepare_dataset
from imagenet_repro.data.sources import open_split
from imagenet_repro.errors import UserError
from tests.data.prepare.test_folder import image, stored, write_folder, write_zip

HOLDOUT = Options(holdout=0.25)


def pictures(count, first=0):
    return [image(first + number) for number in range(count)]


def classes_of(data_dir, name):
    return open_split(Data(name=name, data_dir=str(data_dir)), "train").class_names


def splits_of(listing):
    return Counter((one.split, one.label) for one in listing.images)


# --- folders of classes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_folders_of_classes_are_divided_class_by_class(tmp_path, kind, capsys):
    content = {f"{label}/{number}.jpg": image(number) for label in ("cat", "dog") for number in range(8)}
    source = write_folder(tmp_path / "pets", content)
    if kind == "zip":
        source = write_zip(tmp_path / "pets.zip", content)
    with pytest.raises(UserError, match=r"16 images of 2 classes, and no splits(.|\n)* --holdout=20%"):
        prepare_dataset(f"folder:{source}", data_dir=str(tmp_path / "data"))
    prepared = prepare_dataset(f"folder:{source}", data_dir=str(tmp_path / "data"), holdout="25%")
    assert prepared.splits == {"train": 12, "validation": 4}
    assert "folders CLASS/IMAGE: 2 classes, 16 images; train 12, validation 4 (25 % of each" in capsys.readouterr().err
    expected = {name: (data, name.split("/")[0]) for name, data in content.items()}
    assert stored(tmp_path / "data", "pets") == expected
    assert splits_of(shapes.scan(source, HOLDOUT)) == {
        (split, label): count for split, count in (("train", 6), ("validation", 2)) for label in ("cat", "dog")
    }


def test_what_was_held_out_is_remembered_and_another_share_is_named(tmp_path):
    content = {f"{label}/{number}.jpg": image(number) for label in ("cat", "dog") for number in range(8)}
    source, data = write_folder(tmp_path / "pets", content), str(tmp_path / "data")
    prepare_dataset(f"folder:{source}", data_dir=data, holdout="0.25", holdout_seed=3)
    assert prepare_dataset(f"folder:{source}", data_dir=data).how == "already prepared"
    with pytest.raises(UserError, match=r"with --holdout=25% --holdout_seed=3, and this is with --holdout=50% --h"):
        prepare_dataset(f"folder:{source}", data_dir=data, holdout="50%")
    again = prepare_dataset(f"folder:{source}", data_dir=data, holdout="50%", overwrite=True)
    assert again.splits == {"train": 8, "validation": 8}
    with pytest.raises(UserError, match="no image is held out without --holdout"):
        prepare_dataset(f"folder:{source}", data_dir=str(tmp_path / "new"), holdout_seed=3)


def test_a_train_split_alone_can_be_divided_and_others_cannot(tmp_path):
    content = {f"train/{label}/{number}.jpg": image(number) for label in ("cat", "dog") for number in range(4)}
    source = write_folder(tmp_path / "pets", content)
    assert splits_of(shapes.scan(source, HOLDOUT))["validation", "cat"] == 1
    write_folder(source, {"val/cat/1.jpg": image(1), "val/dog/1.jpg": image(2)})
    with pytest.raises(UserError, match="the splits are train, validation"):
        shapes.scan(source, HOLDOUT)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train/1.jpg": 1, "val/1.jpg": 2}, r"the folders train, val are named after splits and hold images without"),
        ({"train/1.jpg": 1, "cat/1.jpg": 2}, r"named after splits .*, and the folders cat may be classes"),
        ({"images/1.jpg": 1, "images/2.jpg": 2}, r"all images are in one folder, images, and at least two classes"),
        ({"images/1.jpg": 1, "labels.csv": 0}, r"If labels\.csv says what each image shows, type:\n .*labels\.csv"),
        ({"1.jpg": 1, "labels.csv": 0}, r"1 images are not at SPLIT/CLASS/IMAGE(.|\n)*If labels\.csv says"),
        ({"cat/1.jpg": 1, "cat/2.jpg": 1, "dog/1.jpg": 2}, r"1 classes have one image each, .*: dog"),
        ({"cat/1.jpg": 1, "dog/a/1.jpg": 2}, r"1 images are not at SPLIT/CLASS/IMAGE.*: cat/1\.jpg"),
        ({"cats/a/1.jpg": 1, "dogs/b/1.jpg": 2}, r"If the first folders are classes, move the images directly"),
        ({"cat /1.jpg": 1, "dog/1.jpg": 2}, r"'cat ' begins or ends with a blank"),
        ({"caf\u00e9/1.jpg": 1, "cafe\u0301/1.jpg": 2}, r"have the same name in other Unicode characters"),
        ({os.fsdecode(b"caf\xe9/1.jpg"): 1, "dog/1.jpg": 2}, r"'caf\\xe9' is not UTF-8"),
        ({"a.tar": 0, "b.parquet": 0}, r"it holds 1 Parquet shards and 1 WebDataset shards"),
    ],
)
def test_layouts_that_are_none_or_several_are_named(tmp_path, content, message):
    source = write_folder(tmp_path / "pets", {name: image(seed) for name, seed in content.items()})
    with pytest.raises(UserError, match=message):
        shapes.scan(source, HOLDOUT)
    assert not (tmp_path / "data").exists()


# --- tables -----------------------------------------------------------------------------------------------------


def write_table(path, header, rows, delimiter=","):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return path


@pytest.mark.parametrize("kind", ["csv", "semicolons", "tsv", "parquet"])
def test_a_table_names_files_labels_and_splits(tmp_path, kind):
    content = {f"photos/{number}.jpg": image(number) for number in range(6)}
    write_folder(tmp_path / "birds", content)
    rows = [(name, "owl, snowy" if n % 2 else "10", "train" if n < 4 else "val") for n, name in enumerate(content)]
    path = tmp_path / "birds" / f"labels.{'csv' if kind == 'semicolons' else kind}"
    if kind == "parquet":
        columns = dict(zip(("File_Name", "class", "split"), map(list, zip(*rows, strict=True)), strict=True))
        parquet.write_table(pyarrow.table(columns), path)
    else:
        write_table(path, ["File_Name", "class", "split"], rows, {"tsv": "\t", "semicolons": ";"}.get(kind, ","))
    prepared = prepare_dataset(f"folder:{path}", data_dir=str(tmp_path / "data"))
    assert (prepared.name, prepared.splits) == ("birds", {"train": 4, "validation": 2})
    assert stored(tmp_path / "data", "birds") == {name: (content[name], label) for name, label, _ in rows}


def test_labels_that_are_numbers_keep_their_order(tmp_path):
    write_folder(tmp_path, {f"{number}.jpg": image(number) for number in range(12)})
    path = write_table(tmp_path / "t.csv", ["file", "label"], [(f"{n}.jpg", n) for n in range(12)])
    assert shapes.scan(path, Options(holdout=0.0)).classes == tuple(map(str, range(12)))


def test_other_names_of_columns_are_given_and_remembered(tmp_path):
    write_folder(tmp_path / "x", {f"{number}.jpg": image(number) for number in range(4)})
    rows = [(f"{number}.jpg", "ab"[number % 2], "cd"[number // 2]) for number in range(4)]
    path, data = write_table(tmp_path / "x" / "t.csv", ["file", "breed", "owner"], rows), str(tmp_path / "data")
    with pytest.raises(
        UserError, match=r"no column is the label; the columns are file, breed, owner.*--columns=label"
    ):
        prepare_dataset(f"folder:{path}", data_dir=data, holdout="0.5")
    prepare_dataset(f"folder:{path}", data_dir=data, holdout="0.5", columns="label=breed")
    assert classes_of(data, "x") == ("a", "b")
    assert prepare_dataset(f"folder:{path}", data_dir=data).how == "already prepared"
    with pytest.raises(UserError, match="--columns: there is no column 'bred'"):
        shapes.scan(path, Options(0.5, columns=(("label", "bred"),)))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("0.jpg", "a"), ("9.jpg", "a")], r"1 files or folders cannot be read: .*9\.jpg \(No such file"),
        (
            [("0.jpg", "a"), ("./0.jpg", "b")],
            r"1 files have more than one row, 1 of them with different labels: 0\.jpg",
        ),
        ([("0.jpg", "a"), ("1.jpg", "")], r"1 rows have no label, the first in line 3"),
        ([("0.jpg", "a"), ("1.jpg",)], r"line 3 has another number of cells than the first line"),
        ([("0.jpg", "a"), ("1.jpg", "a ")], r"'a ' begins or ends with a blank\. Rename them in the table"),
        ([("0.jpg", "a"), (".", "b")], r"1 files are not files: .*Correct the table"),
    ],
)
def test_problems_of_tables_are_named(tmp_path, rows, message):
    write_folder(tmp_path, {"0.jpg": image(0), "1.jpg": image(1)})
    with pytest.raises(UserError, match=message):
        shapes.scan(write_table(tmp_path / "t.csv", ["file", "label"], rows), Options(holdout=0.0))


def test_a_table_does_not_lead_to_files_of_the_system(tmp_path):
    write_folder(tmp_path / "x", {"0.jpg": image(0), "1.jpg": image(1)})
    path = write_table(tmp_path / "x" / "t.csv", ["file", "label"], [("0.jpg", "a"), ("/etc/passwd", "b")])
    with pytest.raises(UserError, match="/etc/passwd, which is not an image"):
        prepare_dataset(f"folder:{path}", data_dir=str(tmp_path / "data"), holdout="0")


def test_a_class_that_is_evaluated_and_never_trained_is_an_error(tmp_path):
    write_folder(tmp_path, {f"{n}.jpg": image(n) for n in range(3)})
    rows = [("0.jpg", "a", "train"), ("1.jpg", "b", "train"), ("2.jpg", "a", "val")]
    assert len(shapes.scan(write_table(tmp_path / "t.csv", ["file", "label", "split"], rows)).images) == 3
    rows[1] = ("1.jpg", "b", "val")
    with pytest.raises(UserError, match="split 'train' lacks 1 of the 2 classes that other splits have: b"):
        shapes.scan(write_table(tmp_path / "t.csv", ["file", "label", "split"], rows))


# --- Hugging Face data sets -------------------------------------------------------------------------------------


FEATURES = {"photo": {"_type": "Image"}, "kind": {"_type": "ClassLabel", "names": ["zebra", "ant", "cat"]}}


def hugging_face_table(encoded, labels, paths=None):
    photos = [{"bytes": one, "path": path} for one, path in zip(encoded, paths or [None] * len(encoded), strict=True)]
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    schema = pyarrow.schema(
        [("photo", kind), ("kind", pyarrow.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": FEATURES}})},
    )
    return pyarrow.table({"photo": photos, "kind": labels}, schema=schema)


def write_arrow(path, table):
    path.parent.mkdir(parents=True, exist_ok=True)
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    state = {"_data_files": [{"filename": path.name}], "_split": path.parent.name}
    (path.parent / "state.json").write_text(json.dumps(state))


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_a_hugging_face_data_set_keeps_its_order_of_classes(tmp_path, kind):
    source, encoded = tmp_path / "zoo", {"train": pictures(5), "test": pictures(2, 10)}
    labels = {"train": [0, 1, 2, 0, 1], "test": [2, 2]}
    for split, content in encoded.items():
        table = hugging_face_table(content, labels[split])
        if kind == "arrow":
            write_arrow(source / split / "data-00000-of-00001.arrow", table)
            write_arrow(source / split / "cache-1.arrow", table)  # of a computation; not in the state
            write_arrow(source / split / "data-00000-of-00001.arrow", table)
        else:
            (source / "data").mkdir(parents=True, exist_ok=True)
            parquet.write_table(table, source / "data" / f"{split}-00000-of-00001.parquet", row_group_size=2)
    if kind == "arrow":
        (source / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    prepared = prepare_dataset(f"folder:{source}", data_dir=str(tmp_path / "data"))
    assert prepared.splits == {"train": 5, "test": 2}
    assert classes_of(tmp_path / "data", "zoo") == ("zebra", "ant", "cat")
    for split, content in encoded.items():
        records = open_split(Data(name="zoo", data_dir=str(tmp_path / "data")), split).records
        by_id = sorted((record.id, record.image, record.label) for record in records)
        rows = enumerate(zip(content, labels[split], strict=True))
        assert by_id == [(f"{split}/{n:08d}", one, label) for n, (one, label) in rows]
    assert not [path for path in (tmp_path / "data").iterdir() if path.name.startswith(".")]
    assert prepare_dataset(f"folder:{source}", data_dir=str(tmp_path / "data")).how == "already prepared"


def test_a_split_without_labels_is_left_out_and_rows_without_are_an_error(tmp_path):
    for split, labels in {"train": [0, 1, 2], "test": [-1, -1, -1]}.items():
        parquet.write_table(hugging_face_table(pictures(3), labels), tmp_path / f"{split}.parquet")
    listing = shapes.scan(tmp_path)
    assert splits_of(listing) == {("train", label): 1 for label in ("zebra", "ant", "cat")}
    assert listing.notes == ("split test has no labels and was left out: 3 images",)
    parquet.write_table(hugging_face_table(pictures(3), [0, -1, 2]), tmp_path / "train.parquet")
    with pytest.raises(UserError, match="1 rows of split train"):
        shapes.scan(tmp_path)


def test_paths_of_images_are_their_names_and_may_lead_to_files(tmp_path):
    (tmp_path / "far.jpg").write_bytes(image(9))
    table = hugging_face_table([image(1), None], [0, 1], ["near.jpg", "far.jpg"])
    parquet.write_table(table, tmp_path / "one.parquet")
    assert prepare_dataset(
        f"folder:{tmp_path / 'one.parquet'}", data_dir=str(tmp_path / "d"), holdout="0", as_name="x"
    )
    records = open_split(Data(name="x", data_dir=str(tmp_path / "d")), "train").records
    assert {record.id: record.image for record in records} == {"near.jpg": image(1), "far.jpg": image(9)}


def test_columns_that_could_all_be_the_label_are_named(tmp_path):
    table = pyarrow.table({"image": [{"bytes": image(0)}], "class": ["a"], "category": ["b"]})
    parquet.write_table(table, tmp_path / "one.parquet")
    with pytest.raises(UserError, match="the columns class, category could all be the label"):
        shapes.scan(tmp_path / "one.parquet", Options(holdout=0.0))
    chosen = Options(0.0, columns=(("label", "category"),))
    assert shapes.scan(tmp_path / "one.parquet", chosen).classes == ("b",)


def test_files_cut_short_are_named(tmp_path):
    table = hugging_face_table(pictures(3), [0, 1, 2])
    parquet.write_table(table, tmp_path / "train.parquet")
    (tmp_path / "train.parquet").write_bytes((tmp_path / "train.parquet").read_bytes()[:-20])
    with pytest.raises(UserError, match=r"train\.parquet cannot be read"):
        shapes.scan(tmp_path)


def test_the_library_writes_what_is_read(tmp_path):
    """With the real library, which is no dependency."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["b", "a"])})
    rows = {"img": [{"bytes": one, "path": None} for one in pictures(6)], "label": [0, 1] * 3}
    data = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": data, "validation": data.select([5, 4])}).save_to_disk(str(tmp_path / "pair"))
    data.save_to_disk(str(tmp_path / "single"))
    data.to_parquet(str(tmp_path / "shard.parquet"))
    for source, options in ((tmp_path / "pair", {}), (tmp_path / "single", {"holdout": "0"})):
        prepare_dataset(f"folder:{source}", data_dir=str(tmp_path / "data"), **options)
        records = open_split(Data(name=source.name, data_dir=str(tmp_path / "data")), "train").records
        assert sorted((one.image, one.label) for one in records) == sorted(zip(pictures(6), [0, 1] * 3, strict=True))
    assert shapes.scan(tmp_path / "shard.parquet", Options(0.0)).classes == ("b", "a")
    assert prepare_dataset(f"folder:{tmp_path / 'pair'}", data_dir=str(tmp_path / "data")).splits["validation"] == 2


# --- WebDataset -------------------------------------------------------------------------------------------------


def write_tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("named", [False, True])
def test_webdataset_shards_are_read_by_their_places(tmp_path, named):
    encoded = pictures(13)
    for shard in range(2):
        numbers = range(6 * shard, 6 * shard + 6)
        members = {f"a.b/{n:03d}.jpg": encoded[n] for n in numbers} | {
            f"a.b/{n:03d}.cls": str(n).encode() for n in numbers
        }
        write_tar(tmp_path / "wds" / f"set-train-{shard:06d}.tar", members)
    write_tar(
        tmp_path / "wds" / "set-val-000000.tar", {"x.JPG": encoded[12], "x.json": b'{"label": 7}', "y.txt": b"?"}
    )
    if named:
        (tmp_path / "wds" / "classes.txt").write_text("".join(f"class {n}\n" for n in range(12)))
    prepared = prepare_dataset(f"folder:{tmp_path / 'wds'}", data_dir=str(tmp_path / "data"))
    assert prepared.splits == {"train": 12, "validation": 1}
    prefix = "class " if named else ""
    assert classes_of(tmp_path / "data", "wds") == tuple(f"{prefix}{n}" for n in range(12))
    records = stored(tmp_path / "data", "wds")
    expected = {f"set-train-{n // 6:06d}.tar/a.b/{n:03d}.jpg": (encoded[n], f"{prefix}{n}") for n in range(12)}
    assert records == expected | {"set-val-000000.tar/x.JPG": (encoded[12], f"{prefix}7")}
    again = prepare_dataset(f"folder:{tmp_path / 'wds'}", data_dir=str(tmp_path / "data"))
    assert again.how == "already prepared"


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"train/cat/1.jpg": 1}, r"1 files have no label: t\.tar/train/cat/1\. Add KEY\.cls"),
        ({"readme.md": 0}, r"no samples of WebDataset(.|\n)*Unpack tar archives first"),
        ({"1.jpg": 1, "1.png": 2, "1.cls": 0}, r"1 files are a second image of a sample"),
    ],
)
def test_problems_of_shards_are_named(tmp_path, members, message):
    content = {name: b"3" if name.endswith("cls") else image(seed) for name, seed in members.items()}
    write_tar(tmp_path / "t.tar", content)
    with pytest.raises(UserError, match=message):
        shapes.scan(tmp_path, Options(holdout=0.0))
    (tmp_path / "t.tar").write_bytes((tmp_path / "t.tar").read_bytes()[:700])
    with pytest.raises(UserError, match=r"t\.tar cannot be read as a tar file"):
        shapes.scan(tmp_path, Options(holdout=0.0))


def test_the_library_writes_shards_that_are_read(tmp_path):
    """With the real library, which is no dependency."""
    webdataset = pytest.importorskip("webdataset")
    with webdataset.ShardWriter(str(tmp_path / "train-%06d.tar"), maxcount=4, verbose=0) as writer:
        for number, one in enumerate(pictures(6)):
            writer.write({"__key__": f"{number:04d}", "jpg": one, "cls": number % 3})
    prepare_dataset(f"folder:{tmp_path}", data_dir=str(tmp_path / "data"), as_name="w")
    records = open_split(Data(name="w", data_dir=str(tmp_path / "data")), "train").records
    assert sorted((one.image, one.label) for one in records) == sorted(
        (one, number % 3) for number, one in enumerate(pictures(6))
    )


# --- replacing --------------------------------------------------------------------------------------------------


def test_overwriting_replaces_and_a_failure_keeps_the_older_data_set(tmp_path):
    content = {f"{label}/{number}.jpg": image(number) for label in ("cat", "dog") for number in range(4)}
    source, data = write_folder(tmp_path / "pets", content), str(tmp_path / "data")
    prepare_dataset(f"folder:{source}", data_dir=data, holdout="0.25", short_side=8)
    write_folder(source, {f"bird/{number}.jpg": image(number) for number in range(4)})
    with pytest.raises(UserError, match=r"- 1 class was added: bird\n(.|\n)*--overwrite"):
        prepare_dataset(f"folder:{source}", data_dir=data)
    os.symlink("/etc/passwd", source / "bird" / "link.jpg")
    with pytest.raises(UserError, match="is not an image"):
        prepare_dataset(f"folder:{source}", data_dir=data, overwrite=True)
    assert classes_of(data, "pets") == ("cat", "dog")
    (source / "bird" / "link.jpg").unlink()
    prepared = prepare_dataset(f"folder:{source}", data_dir=data, overwrite=True, short_side=8)
    assert prepared.splits == prepared.smaller.splits == {"train": 9, "validation": 3}
    assert classes_of(data, "pets") == classes_of(data, "pets_side8_q90") == ("bird", "cat", "dog")
    assert sorted(os.listdir(data)) == ["pets", "pets_side8_q90"]
    assert os.listdir(tmp_path / "data" / "pets") == ["1.0.0"]
    again = prepare_dataset(f"folder:{source}", data_dir=data, overwrite=True)
    assert again.how == "already prepared"
    shutil.rmtree(source)
    with pytest.raises(UserError, match="no such file"):
        prepare_dataset(f"folder:{source}", data_dir=data, overwrite=True)

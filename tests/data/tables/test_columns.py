"""Tables: what becomes of columns and values, what is left out and said, and files that are not as they should be."""

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from selfsup.data import BadDataError, Items, open_data
from selfsup.data.tables.schema import LEVELS, Schema, column_statistics

PEOPLE = """name,age,job,member,height,class
Ann,31,clerk,True,1.62,b
Bob,NA,baker,False,1.81,a
Cid,45,clerk,?,,b
Dot,23,,True,1.70,null
Eve,52,clerk,True,1.75,a
"""


def vectors(items: Items) -> np.ndarray:
    return items.batch(np.arange(len(items)))["vector"].numpy()


def written(folder: Path, text: str | bytes, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def told(items: Items) -> dict[str, str]:
    return {skipped.name: skipped.reason for skipped in items.skipped}


def test_numbers_categories_missing_values_and_classes(tmp_path: Path) -> None:
    items = open_data(written(tmp_path, PEOPLE))
    assert items.kind == "vector"
    assert items.table is not None
    assert [(c.name, c.levels) for c in items.table.columns] == [
        ("age", None),
        ("job", ("clerk", "baker")),
        ("member", ("True", "False")),
        ("height", None),
    ]
    nan = np.nan
    expected = [  # age, job: clerk baker other missing, member: True False other missing, height
        [31, 1, 0, 0, 0, 1, 0, 0, 0, 1.62],
        [nan, 0, 1, 0, 0, 0, 1, 0, 0, 1.81],
        [45, 1, 0, 0, 0, 0, 0, 0, 1, nan],
        [23, 0, 0, 0, 1, 1, 0, 0, 0, 1.70],
        [52, 1, 0, 0, 0, 1, 0, 0, 0, 1.75],
    ]
    np.testing.assert_array_equal(vectors(items), np.float32(expected))
    assert items.table.blocks == ((1, 5), (5, 9))
    assert items.classes == ("a", "b")
    assert items.labels is not None
    assert items.labels.tolist() == [1, 0, 1, -1, 0]
    assert list(items.names) == [f"row {i}" for i in range(5)]
    assert told(items) == {'column "name"': "left out: 5 different texts, none of them twice"}
    np.testing.assert_array_equal(vectors(items.subset(np.array([3, 0]))), np.float32(expected)[[3, 0]])


def test_the_column_of_the_classes_can_be_named(tmp_path: Path) -> None:
    path = written(tmp_path, PEOPLE)
    items = open_data(f"{path}?label=job")
    assert items.classes == ("baker", "clerk")
    assert items.table is not None
    assert "class" in [column.name for column in items.table.columns]
    assert items.source == f"{path}?label=job"
    none = open_data(f"{path}?label=")
    assert none.labels is None
    with pytest.raises(ValueError, match='no column "jobs" for the classes; it has name, age'):
        open_data(f"{path}?label=jobs")
    with pytest.raises(ValueError, match="only tables"):
        open_data(f"{tmp_path}?label=job")
    numbers = open_data(written(tmp_path, "x,y\n1,-1\n3,10\n1,2\n1,10.0\n").as_posix() + "?label=y")
    assert numbers.classes == ("-1", "2", "10"), "in the order of numbers"
    assert numbers.labels is not None
    assert numbers.labels.tolist() == [0, 2, 1, 2]
    target = open_data(written(tmp_path, "x,target\n1,0.5\n3,0.7\n1,2\n"))
    assert (target.labels, target.shape) == (None, (1,))
    assert told(target) == {'column "target"': "numbers under the name of a label: neither class nor input"}
    with pytest.raises(ValueError, match="must hold classes, got numbers such as"):
        open_data(f"{tmp_path / 'table.csv'}?label=target")


def test_a_later_table_becomes_the_same_vectors(tmp_path: Path) -> None:
    items = open_data(written(tmp_path, PEOPLE))
    assert items.table is not None
    schema = Schema.from_json(items.table.to_json())
    assert schema == items.table
    later = written(tmp_path, "more,height,member,job,age\n1,1.9,False, pilot ,?\n2,1.5,true,baker,40\n", "later.csv")
    opened = open_data(later, table=schema)
    nan = np.nan
    expected = [[nan, 0, 0, 1, 0, 0, 1, 0, 0, 1.9], [40, 0, 1, 0, 0, 0, 0, 1, 0, 1.5]]
    np.testing.assert_array_equal(vectors(opened), np.float32(expected))
    assert opened.labels is None
    assert told(opened) == {'column "more"': "left out: the run was not trained on it"}
    with pytest.raises(ValueError, match=r'no column "height", which the run was trained on; it has job, age, member'):
        open_data(written(tmp_path, "job,age,member\n", "a.csv"), table=schema)
    with pytest.raises(ValueError, match=r'row 1 .*"tall" in column "height" is no number'):
        open_data(written(tmp_path, "job,age,member,height\na,1,b,1\na,1,b,tall\n", "b.csv"), table=schema)


def test_rare_levels_are_one_and_it_is_said(tmp_path: Path) -> None:
    towns = [f"town {i}" for i in range(100) for _ in range(1 + (i >= 90))]
    items = open_data(written(tmp_path, "town,x\n" + "".join(f"{town},{len(town)}\n" for town in towns)))
    assert items.table is not None
    column = items.table.columns[0]
    assert column.levels is not None
    assert len(column.levels) == LEVELS
    assert column.levels[:11] == (*(f"town {i}" for i in range(90, 100)), "town 0")
    assert vectors(items)[:, LEVELS].sum() == 36
    assert told(items) == {'column "town"': "100 levels; the 64 most frequent are told apart"}


def test_what_is_no_plain_number_is_a_category_and_said(tmp_path: Path) -> None:
    body = "".join(f'"{i % 7},000",{i},{i % 3}_0,x\n' for i in range(50))
    items = open_data(written(tmp_path, "price,counts,code,empty\n" + body.replace(",x", ",")))
    assert told(items) == {
        'column "price"': 'a category, for not all of it are plain numbers ("0,000", for instance)',
        'column "code"': 'a category, for not all of it are plain numbers ("0_0", for instance)',
        'column "counts"': "left out: it counts the rows",
        'column "empty"': "left out: no values",
    }
    assert items.shape == (7 + 2 + 3 + 2,)


def test_text_after_many_numbers_makes_a_category(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfsup.data.tables.csvs._CELLS_AT_ONCE", 8)
    items = open_data(written(tmp_path, "a,b\n" + "".join(f"{i % 3},{i / 2}\n" for i in range(40)) + "x,1\nx,2\n"))
    assert items.table is not None
    assert items.table.columns[0].levels == ("0", "1", "2", "x")
    assert items.table.columns[1].levels is None
    np.testing.assert_array_equal(vectors(items)[:, -1], np.float32([*(i / 2 for i in range(40)), 1, 2]))


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfa,b\r\n1,x\r\n2,y\r\n3,x\r\n",
        "a,b\n1,x\n2,y\n3,x\n".encode("utf-16"),
        b'"a";"b"\n1;"x"\n2;"y"\n3;"x"',
        b"a\tb\n1\tx\n2\ty\n3\tx\n",
        b"a, b\n1, x\n2, y\n\n3, x\n",
        b'a,b\n1,x\n2,y\n"3","x"\n',
    ],
)
def test_ways_of_writing_the_same(text: bytes, tmp_path: Path) -> None:
    plain = open_data(written(tmp_path, "a,b\n1,x\n2,y\n3,x\n", "plain.csv"))
    items = open_data(written(tmp_path, text))
    np.testing.assert_array_equal(vectors(items), vectors(plain))
    assert items.table == plain.table
    packed = tmp_path / "packed.csv.gz"
    packed.write_bytes(gzip.compress(text))
    np.testing.assert_array_equal(vectors(open_data(packed)), vectors(plain))


def test_quotes_names_and_letters(tmp_path: Path) -> None:
    items = open_data(written(tmp_path, ',"a, b"\n"two\nlines",1\n"two\nlines",2\ncaf\xe9,1\n'.encode("latin-1")))
    assert items.table is not None
    assert [(column.name, column.levels) for column in items.table.columns] == [("column 1", ("two\nlines", "café")), ("a, b", None)]
    assert told(items) == {"table.csv": "not UTF-8, so it was read as Latin-1"}


def test_ragged_rows_are_counted_and_limited(tmp_path: Path) -> None:
    path = written(tmp_path, "a,b\n" + "1,2\n" * 30 + "3\n" + "4,5\n" * 30 + "6,7,8\n\n9,1e99\n")
    items = open_data(path, max_bad=0.05)
    assert told(items) == {
        "row 30": "line 32: 1 values, the header has 2",
        "row 61": "line 63: 3 values, the header has 2",
        "(blank)": "1 lines without anything on them",
        "row 62": 'column "b" is infinite',
    }
    assert (len(items), items.refused) == (60, 3)
    assert items.names[30] == "row 31"
    with pytest.raises(BadDataError, match=r"3 of 63 items .* cannot be read"):
        open_data(path)


def test_an_open_quote_costs_all_its_lines(tmp_path: Path) -> None:
    path = written(tmp_path, "a,b\n" + "1,2\n" * 50 + '"3,4\n' + "5,6\n" * 50)
    with pytest.raises(BadDataError, match=r"51 of 101 items .*over 51 lines; is a quote left open"):
        open_data(path)
    long = written(tmp_path, "a,b\n" + '"3,4\n' + "5,6\n" * 50_000)
    with pytest.raises(BadDataError, match="is a quote left open, or the file damaged"):
        open_data(long)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("a,b\n", "names of columns but no rows"),
        ("a,b\n1\n2\n", "no rows that can be used; row 0: line 2: 1 values"),
        ("a,b,a\n1,2,3\n", 'several columns are named "a"'),
        ("5.1,3.5,setosa\n4.9,3.0,setosa\n", '"5.1" seems to be a value'),
        ("id,n\na,1\nb,2\nc,3\n", 'no column to learn from: column "id" left out: 3 different texts'),
    ],
)
def test_tables_that_cannot_be_used(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        open_data(written(tmp_path, text))


def test_a_cut_archive_is_named(tmp_path: Path) -> None:
    whole = gzip.compress(("a,b\n" + "".join(f"{i * i},{i * 7 % 13}\n" for i in range(5000))).encode())
    for name, content in (("cut.csv.gz", whole[:-2000]), ("bits.csv.gz", whole[:200] + bytes(50) + whole[250:])):
        with pytest.raises(BadDataError, match=name):
            open_data(written(tmp_path, content, name))


def test_parquet_and_csv_are_the_same_table(tmp_path: Path) -> None:
    columns = {
        "i": pa.array([1, None, 3, 4], pa.int64()),
        "f": pa.array([0.5, 1.5, float("nan"), 2.5]),
        "flag": pa.array([True, False, None, True]),
        "word": pa.array(["a", "b", "a", None]).dictionary_encode(),
        "when": pa.array([0, 1, 2, 3], pa.timestamp("s")),
        "class": pa.array([0, 1, 0, 1]),
    }
    table = pa.table(columns)
    parquet.write_table(table, tmp_path / "t.parquet")
    items = open_data(tmp_path / "t.parquet")
    text = "i,f,flag,word,class\n1,0.5,True,a,0\n,1.5,False,b,1\n3,nan,,a,0\n4,2.5,True,,1\n"
    same = open_data(written(tmp_path, text))
    np.testing.assert_array_equal(vectors(items), vectors(same))
    assert items.table == same.table
    assert (items.classes, same.classes) == (("0", "1"), ("0", "1"))
    assert told(items) == {'column "when"': "left out: timestamp[ms] is neither a number nor a text"}
    shards = tmp_path / "shards"
    shards.mkdir()
    for k in range(2):
        parquet.write_table(table.slice(2 * k, 2), shards / f"{k}.parquet")
    np.testing.assert_array_equal(vectors(open_data(shards)), vectors(items))
    np.testing.assert_array_equal(vectors(open_data(tmp_path / "t.parquet", table=same.table)), vectors(same))
    parquet.write_table(table.drop_columns(["word"]), shards / "1.parquet")
    with pytest.raises(BadDataError, match=r"1\.parquet is not readable parquet, or differs"):
        open_data(shards)


def test_statistics_leave_out_what_is_missing() -> None:
    nan = np.nan
    x = np.float32([[1, nan, 7, 1e4, 0], [3, nan, 7, 1e4, 1], [nan, nan, 7, 1e4, 1]])
    mean, std = column_statistics(x, ((4, 5),))
    np.testing.assert_allclose(mean, [2, 0, 7, 1e4, 0])
    np.testing.assert_allclose(std, [1, 1, 1, 1, 1])
    far = np.random.default_rng(0).normal(1e-6, 1e-7, (500, 1)).astype(np.float32)
    np.testing.assert_allclose(column_statistics(far)[1], far.std(axis=0, dtype=np.float64), rtol=1e-6)

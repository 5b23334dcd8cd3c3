"""Files of the payload log, read by Python's csv and json, pyarrow and pandas (SPEC L8, L9)."""

import base64
import io
import json
import random

import pandas
import pyarrow
import pyarrow.parquet
import pytest

from records import COLUMNS, EPOCH, csv_rows, file, random_records, read_row, record, row

SEED = 20260102
# All 256 bytes, so no text in any encoding that is checked, and so large that nothing fits into one buffer.
LARGE = random.Random(SEED).randbytes(1 << 20) + bytes(range(256))


def expected_in_csv(records):
    return [{**row(one), "tlsSkipVerify": str(row(one)["tlsSkipVerify"]).lower()} for one in records]


def parquet(records):
    return pyarrow.parquet.ParquetFile(pyarrow.BufferReader(file("parquet", records)))


def without_empty(one):
    """As the JSON form has it: empty members left out, but for the time."""
    kept = {name: value for name, value in one.items() if value or name == "occurrenceTime"}
    return {"occurrenceTime": EPOCH, **kept}


class TestJson:
    def test_one_record_is_an_object(self):
        assert json.loads(file("json", [record()])) == record()

    @pytest.mark.parametrize("count", [0, 2, 200])
    def test_others_are_an_array(self, count):
        records = random_records(SEED, count)
        assert json.loads(file("json", records)) == [without_empty(one) for one in records]

    def test_a_large_payload_survives(self):
        assert base64.b64decode(json.loads(file("json", [record(LARGE)]))["bytes"]) == LARGE


class TestCsv:
    def test_a_record_is_a_row(self):
        assert csv_rows(file("csv", [record()])) == expected_in_csv([record()])

    def test_whatever_is_in_the_texts_comes_back(self):
        records = random_records(SEED, 1000)
        assert csv_rows(file("csv", records)) == expected_in_csv(records)

    def test_a_large_payload_survives(self):
        rows = csv_rows(file("csv", [record(), record(LARGE)]))
        assert base64.b64decode(rows[1]["bytes"]) == LARGE

    def test_pandas_has_the_columns_in_order(self):
        table = pandas.read_csv(io.BytesIO(file("csv", [record(), record()])))
        assert list(table.columns) == COLUMNS and len(table) == 2


class TestParquet:
    def test_the_file_says_what_it_is(self):
        metadata = parquet([record()]).metadata
        assert metadata.created_by.startswith("kserve-agent version ")
        assert metadata.num_row_groups == 1

    @pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 1000])
    def test_whatever_is_in_the_texts_comes_back(self, count):
        records = random_records(SEED, count)
        table = parquet(records).read()
        table.validate(full=True)
        assert [read_row(values) for values in table.to_pylist()] == [row(one) for one in records]

    def test_the_schema_is_that_of_the_go_agent(self):
        made = parquet([record()])
        string, flag = pyarrow.string(), pyarrow.bool_()
        types = [string] * (len(COLUMNS) - 1) + [flag]
        fields = [pyarrow.field(name, of, nullable=False) for name, of in zip(COLUMNS, types, strict=True)]
        assert made.schema_arrow.equals(pyarrow.schema(fields))
        assert made.schema.column(1).logical_type.type == "STRING"
        assert made.schema.column(1).converted_type == "UTF8"

    def test_a_large_payload_survives(self):
        table = parquet([record(), record(LARGE)]).read()
        assert base64.b64decode(table["bytes"][1].as_py()) == LARGE

    def test_pandas_has_the_columns_in_order(self):
        table = pandas.read_parquet(io.BytesIO(file("parquet", [record(), record()])))
        assert list(table.columns) == COLUMNS and len(table) == 2

    def test_one_column_can_be_read_alone(self):
        made = parquet([record(id=str(number)) for number in range(100)])
        assert made.read(["id"])["id"].to_pylist() == [str(number) for number in range(100)]

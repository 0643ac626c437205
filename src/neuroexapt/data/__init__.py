"""Named data sets, Parquet files and image folders, loaded into memory as bytes and split."""

from neuroexapt.data.labelled import LabelledImages
from neuroexapt.data.load import NAMED_SOURCES, load_data
from neuroexapt.data.splits import DataSplits, make_splits

__all__ = ["NAMED_SOURCES", "DataSplits", "LabelledImages", "load_data", "make_splits"]

"""The public datasets by name: their addresses, columns and terms of use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

GROUPLENS = "https://files.grouplens.org/datasets/movielens/"
AMAZON = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/"
_MOVIELENS_TERMS = (
    "research use; no commercial use without permission from GroupLens; cite Harper and Konstan (2015); "
    "the README in the archive has the full terms"
)
_UCSD_TERMS = "no licence stated; collected for research at UC San Diego; cite the papers that the homepage names"


@dataclass(frozen=True)
class PublicDataset:
    """A public dataset: its address, columns and terms of use."""

    name: str
    """Name in segue, such as "ml-1m"."""
    title: str
    """Name given by its authors."""
    url: str
    """Address of the archive: a zip, or a gzipped file that is read as it is."""
    member: str
    """File with the interactions: its path in the zip, or the name of the unpacked file."""
    interactions: int
    """Number of interactions."""
    homepage: str
    """Page on which its authors describe it."""
    terms: str
    """Terms of use, in short."""
    format: str
    """Option of `segue.read`, like the fields below: "csv", "jsonl" or "python-dict"."""
    user: str | int
    """Column of the user ids: a name, or a position from 0."""
    item: str | int
    """Column of the item ids."""
    time: str | int
    """Column of the times."""
    rating: str | int | None = None
    """Column of the ratings; None if there are none."""
    separator: str | None = None
    """Separator of the fields of a line."""
    header: bool | None = None
    """True if the first line holds the names of the columns."""
    time_unit: str | None = "s"
    """Unit of the times; None for dates."""
    size: int | None = None
    """Bytes of the archive; None if not known for sure."""
    checksum: str | None = None
    """"md5:…" as published beside the archive; None if none is published."""

    @property
    def archive(self) -> str:
        """File name of the archive."""
        return PurePosixPath(self.url).name


def _movielens(
    name: str, title: str, file: str, interactions: int, size: int, md5: str, separator: str, header: bool
) -> PublicDataset:
    columns: tuple[str | int, ...] = ("userId", "movieId", "timestamp", "rating") if header else (0, 1, 3, 2)
    user, item, time, rating = columns
    return PublicDataset(
        name=name,
        title=title,
        url=f"{GROUPLENS}{name}.zip",
        member=f"{name}/{file}",
        interactions=interactions,
        homepage=f"https://grouplens.org/datasets/movielens/{name.removeprefix('ml-')}/",
        terms=_MOVIELENS_TERMS,
        format="csv",
        separator=separator,
        header=header,
        user=user,
        item=item,
        time=time,
        rating=rating,
        size=size,
        checksum=f"md5:{md5}",
    )


def _amazon(name: str, category: str, interactions: int, size: int | None = None) -> PublicDataset:
    return PublicDataset(
        name=f"amazon-{name}",
        title=f"Amazon reviews 2014, {category.replace('_', ' ')}, 5-core",
        url=f"{AMAZON}reviews_{category}_5.json.gz",
        member=f"reviews_{category}_5.json",
        interactions=interactions,
        homepage="https://jmcauley.ucsd.edu/data/amazon/",
        terms=_UCSD_TERMS,
        format="jsonl",
        user="reviewerID",
        item="asin",
        time="unixReviewTime",
        rating="overall",
        size=size,
    )


_STEAM = PublicDataset(
    name="steam",
    title="Steam reviews (Kang and McAuley 2018)",
    url="https://cseweb.ucsd.edu/~wckang/steam_reviews.json.gz",
    member="steam_reviews.json",
    interactions=7_793_069,
    homepage="https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data",
    terms=_UCSD_TERMS,
    format="python-dict",
    user="username",
    item="product_id",
    time="date",
    time_unit=None,
)

DATASETS = {
    dataset.name: dataset
    for dataset in (
        _movielens(
            "ml-100k", "MovieLens 100K", "u.data", 100_000, 4_924_029, "0e33842e24a9c977be4e0107933c0723", "\t", False
        ),
        _movielens(
            "ml-1m",
            "MovieLens 1M",
            "ratings.dat",
            1_000_209,
            5_917_549,
            "c4d9eecfca2ab87c1945afe126590906",
            "::",
            False,
        ),
        _movielens(
            "ml-20m",
            "MovieLens 20M",
            "ratings.csv",
            20_000_263,
            198_702_078,
            "cd245b17a1ae2cc31bb14903e1204af3",
            ",",
            True,
        ),
        _movielens(
            "ml-25m",
            "MovieLens 25M",
            "ratings.csv",
            25_000_095,
            261_978_986,
            "6b51fb2759a8657d3bfcbfc42b592ada",
            ",",
            True,
        ),
        _movielens(
            "ml-32m",
            "MovieLens 32M",
            "ratings.csv",
            32_000_204,
            238_950_008,
            "d472be332d4daa821edc399621853b57",
            ",",
            True,
        ),
        _amazon("electronics", "Electronics", 1_689_188, 495_854_086),
        _amazon("beauty", "Beauty", 198_502),
        _amazon("sports", "Sports_and_Outdoors", 296_337),
        _amazon("toys", "Toys_and_Games", 167_597),
        _amazon("games", "Video_Games", 231_780),
        _STEAM,
    )
}
"""The public datasets by name. MovieLens publishes MD5 checksums; for the others see `fetch`."""

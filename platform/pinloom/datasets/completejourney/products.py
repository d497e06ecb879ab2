"""Products as items: readable titles and package sizes as numbers."""

from __future__ import annotations

import polars as pl

OUNCES = {"OZ": 1.0, "LB": 16.0, "ML": 0.033814, "L": 33.814, "PT": 16.0, "QT": 32.0, "GA": 128.0, "GAL": 128.0}
"""Ounces in a unit; fluid and weight ounces are not told apart in the source."""

NUMBER = r"(?:^|[^\d.])(\d{1,4}(?:\.\d+)?|\.\d+)\s*"
MEASURE = NUMBER + r"(?:FL )?(OZ|LB|ML|L|PT|QT|GAL?)\b"
COUNT = NUMBER + r"(?:CT|PK|PC|CTN|LOADS?)\b"


def ounces(size: pl.Expr) -> pl.Expr:
    """'1.5 L' → 50.7; null when the text names no measure. Float64."""
    number = size.str.extract(MEASURE, 1).cast(pl.Float64, strict=False)
    return pl.when(number > 0).then(number) * size.str.extract(MEASURE, 2).replace_strict(
        OUNCES, return_dtype=pl.Float64
    )


def describe(products: pl.DataFrame) -> pl.DataFrame:
    """Columns of the contract's `items` with `features.*`."""
    text = pl.coalesce("product_type", "product_category", "department").str.to_titlecase()
    size = pl.col("package_size").str.strip_chars()
    return products.select(
        item_id=pl.col("product_id").cast(pl.String),
        category=pl.col("department"),
        title=pl.concat_str(text, size, separator=", ", ignore_nulls=True),
    ).with_columns(
        products.select(
            pl.col("department", "brand", "product_category", "product_type").name.prefix("features."),
            pl.col("manufacturer_id").cast(pl.String).alias("features.manufacturer"),
            ounces(size).alias("features.package_size"),
            size.str.extract(COUNT, 1).cast(pl.Float64).alias("features.package_count"),
        )
    )

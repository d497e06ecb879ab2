"""Any log in Parquet or CSV, mapped to the contract by its YAML alone."""

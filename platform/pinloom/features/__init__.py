"""Features: content vectors, statistics, histories and ranking rows by user bucket; the online store behind Feast."""

"""Airflow's side: the operator that runs steps as Ray jobs, and the gate that lets many changes cause one run.

Imports Airflow, the standard library, `requests` and `pinloom.settings`; nothing that a step needs.
"""

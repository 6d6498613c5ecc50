"""Search over mmm's systems with Ray, Optuna and MLflow; the ledger keeps the truth about every
sweep.
"""

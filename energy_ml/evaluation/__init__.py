"""Judging what the models do: metrics, the battery backtest and the report that people look at.

Nothing is imported here, because price_prediction and rl_battery use ``metrics`` and must not pay for charts.
"""

"""Benchmarks: the time of operators, and the cost of training and sampling steps."""

from infdiff.benchmark.cost import Setting, StepCost
from infdiff.benchmark.dry_run import dry_run
from infdiff.benchmark.flops import flop_counter, flop_of
from infdiff.benchmark.paper_tables import TABLES, PaperTable
from infdiff.benchmark.step_report import StepReport
from infdiff.benchmark.steps import StepPlan, plan_sampling, plan_table, plan_training, sampling_cost, training_cost
from infdiff.benchmark.timing import Timing, copy_bandwidth, matrix_rate, measure, time_cases

__all__ = [
    "TABLES",
    "PaperTable",
    "Setting",
    "StepCost",
    "StepPlan",
    "StepReport",
    "Timing",
    "copy_bandwidth",
    "dry_run",
    "flop_counter",
    "flop_of",
    "matrix_rate",
    "measure",
    "plan_sampling",
    "plan_table",
    "plan_training",
    "sampling_cost",
    "time_cases",
    "training_cost",
]

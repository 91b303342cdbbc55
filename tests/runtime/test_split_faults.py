"""Faults on one process of a model that is split over all of them (FSDP2)."""

from extras import needs

needs("trl")

import pytest
from stacks import ends_where_it_must, survives_faults
from test_processes import SHARDS

pytestmark = pytest.mark.skipif(not SHARDS, reason="no FSDP2 on the CPU before torch 2.6")


def test_faults_on_one_process_cost_probes(tmp_path):
    survives_faults(tmp_path, "fsdp2")


def test_a_fault_inside_a_pass_on_one_process_ends_the_run(tmp_path):
    ends_where_it_must(tmp_path, "fsdp2")

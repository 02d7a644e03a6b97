"""The conformance tests notice a faulty server: each fault of tests/faulty_server.py, by name.

The tests named here run in a process of their own, against a server with the fault. Each of them
has to fail, and to say what is wrong; a server that does not start is not enough. All of them pass
against the server without a fault.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from faulty_server import FAULTS
from serving_models import READY_MODELS, save_ready_models
from serving_process import FAULT, PATIENCE, ROOT

HERE = Path(__file__).parent.relative_to(ROOT)
LIMIT_S = 1200
# For each fault the tests that notice it, and what stands in the failure of each.
NOTICED: dict[str, dict[str, str]] = {
    # Which model.
    "an_unknown_model_is_an_invalid_argument": {
        "grpc::test_a_model_that_is_not_there_is_named": "INVALID_ARGUMENT",
    },
    "a_label_is_ignored": {
        "grpc::test_a_version_is_chosen_by_label": "[4.]",
        "rest::test_a_version_and_a_label_choose": "4.0",
    },
    "a_request_needs_no_model_spec": {
        "grpc::test_a_request_without_a_model_is_refused": "no name specified",
        "grpc::test_classify_and_regress_want_a_model": "no name specified",
    },
    # Predict.
    "the_default_signature_is_not_used": {
        "grpc::test_the_newest_version_answers": "Serving signature key",
    },
    "a_missing_signature_has_another_text": {
        "grpc::test_a_request_that_does_not_fit_is_told_why": "is missing.",
    },
    "a_missing_signature_has_another_code": {
        "grpc::test_a_request_that_does_not_fit_is_told_why": "NOT_FOUND",
    },
    "an_output_filter_is_ignored": {"grpc::test_an_output_filter_chooses": "rank"},
    "defaults_are_not_filled_in": {
        "grpc::test_defaults_of_a_signature_are_filled_in": "input size does not match signature",
    },
    "words_are_read_as_zeros_where_numbers_are_wanted": {
        "grpc::test_a_request_that_does_not_fit_is_told_why": "DID NOT RAISE",
    },
    "a_reply_does_not_name_its_version": {"grpc::test_the_reply_says_who_answered": "0 != 124"},
    "a_reply_does_not_name_its_signature": {"grpc::test_the_reply_says_who_answered": "'' !="},
    "a_reply_uses_tensor_content": {"grpc::test_a_reply_uses_typed_fields": "[]"},
    "values_that_are_too_few_are_not_repeated": {
        "grpc::test_too_few_values_repeat_the_last_and_none_are_zeros": "[4.0, 5.0, 3.0]",
    },
    "a_long_text_is_not_cut": {"grpc::test_a_long_text_is_cut_and_says_so": "not found."},
    "a_message_may_have_4_megabytes": {
        "grpc::test_large_messages_come_through": "RESOURCE_EXHAUSTED",
    },
    "a_deadline_does_not_end_the_run": {
        "grpc::test_a_deadline_ends_the_run_in_the_server": "DEADLINE_EXCEEDED",
    },
    # Examples.
    "a_context_is_left_out": {
        "grpc::test_a_context_is_in_every_example": "x (data type: float) is required"
    },
    "a_signature_may_be_asked_for_twice": {
        "grpc::test_tasks_that_do_not_fit_together": "DID NOT RAISE",
    },
    "classes_of_a_wrong_type_have_another_text": {
        "grpc::test_a_classification_that_does_not_fit": "Expected classes of DT_STRING",
    },
    # Metadata, status, configuration.
    "metadata_lack_the_version": {
        "grpc::test_metadata_holds_the_signatures": "0 != 1",
        "rest::test_metadata": "'version': '123'",
    },
    "the_oldest_version_is_listed_first": {
        "grpc::test_status_lists_versions_newest_first": "123",
        "rest::test_status": "123",
    },
    "a_failed_version_does_not_say_why": {
        "versions::test_a_version_that_does_not_load_leaves_the_old_one": "0 == 5",
    },
    "new_models_are_not_waited_for": {
        "versions::test_a_reload_fails_when_its_model_does": "DID NOT RAISE",
        "process::test_a_stop_while_it_waits_for_a_first_version": "refuses_connections",
    },
    "a_failed_load_has_another_text": {
        "versions::test_a_reload_fails_when_its_model_does": "models did not become",
    },
    "a_change_of_platform_is_not_noticed": {
        "grpc::test_a_configuration_that_is_not_legal_changes_nothing": "unsupported platform",
    },
    "a_bad_configuration_file_is_an_empty_one": {
        "versions::test_a_configuration_file_is_read_again_and_a_bad_one_changes_nothing": "Latest",
    },
    # Versions.
    "the_old_version_goes_before_the_new_one_comes": {
        "versions::test_a_version_that_does_not_load_leaves_the_old_one": "1: 'END'}",
    },
    "the_old_version_is_kept": {
        "versions::test_a_new_version_takes_over_without_a_failed_call": "1: 'AVAILABLE'",
    },
    "a_version_goes_while_it_answers": {
        "versions::test_a_call_under_way_is_finished_before_its_version_goes": "was cancelled",
    },
    "a_load_is_not_tried_again": {"versions::test_a_load_is_tried_again": "2: 'END'"},
    "a_folder_that_vanished_is_an_empty_one": {
        "versions::test_a_folder_that_vanished_unloads_nothing_and_an_empty_one_all": "NOT_FOUND",
    },
    "a_policy_is_ignored": {
        "versions::test_a_policy_chooses_versions[all {}-wanted3]": "expected {"
    },
    "a_version_has_no_leading_zeros": {"grpc::test_a_version_is_chosen_by_number": "NOT_FOUND"},
    "a_label_may_point_anywhere": {
        "versions::test_labels_need_an_available_version": "DID NOT RAISE",
    },
    "warm_up_is_skipped": {
        "versions::test_warm_up_data_that_are_no_tfrecord_fail_the_load": "2: 'AVAILABLE'",
    },
    # Batching.
    "rows_of_merged_calls_are_mixed_up": {
        "batching::test_calls_are_merged_and_each_gets_its_rows": "== [1]",
    },
    "a_call_may_be_larger_than_a_batch": {
        "batching::test_a_call_larger_than_a_batch_is_refused": "DID NOT RAISE",
    },
    "a_full_queue_has_another_code": {
        "batching::test_a_full_queue_refuses_at_once": "RESOURCE_EXHAUSTED",
    },
    "time_passed_in_the_queue_has_another_code": {
        "batching::test_time_that_passes_in_the_queue_is_resource_exhausted": "504",
    },
    # REST.
    "rows_and_columns_are_confused": {
        "rest::test_rows_in_rows_out": "outputs",
        "rest::test_columns_in_columns_out": "predictions",
    },
    "base_64_is_not_decoded": {"rest::test_bytes_come_in_base_64": "/9g="},
    "bytes_go_out_as_text": {"rest::test_several_tensors_have_names": "'ab'"},
    "a_packed_body_is_not_unpacked": {"rest::test_a_packed_body_is_unpacked": "400"},
    "what_is_not_found_is_a_bad_request": {
        "rest::test_a_request_that_cannot_be_answered": "400",
        "rest::test_a_path_without_an_answer": "400",
    },
    "floats_have_six_digits": {"rest::test_floats_are_written_so_that_they_come_back": "0.333333"},
    "a_preflight_needs_no_origin": {"rest::test_a_preflight_wants_an_origin": "200 == 400"},
    "a_metric_has_another_name": {"rest::test_prometheus_counts_under_the_real_names": "KeyError"},
    "a_bucket_counts_its_own_limit": {"rest::test_a_count_at_a_limit_is_above_it": "2.0 == 1.0"},
    # The process.
    "health_is_always_good": {
        "process::test_health_says_that_the_server_is_stopping": "Cancelling all calls"
    },
    "the_health_service_has_no_names": {
        "grpc::test_health_knows_the_services_by_their_short_names": "NOT_FOUND",
    },
    "reflection_leaves_out_imports": {
        "grpc::test_reflection_describes_the_services": "has not been loaded"
    },
    "cors_headers_are_always_sent": {
        "defaults::test_without_a_flag_there_is_no_cors": "Access-Control",
    },
    "the_port_is_open_on_one_interface": {
        "defaults::test_both_ports_are_open_on_all_interfaces": "UNAVAILABLE",
    },
    "a_stop_cuts_calls_off": {
        "process::test_a_stop_finishes_the_calls_under_way_and_takes_no_more": "Cancelling",
    },
    "a_clients_certificate_is_not_asked_for": {"process::test_tls_and_mutual_tls": "StatusCode.OK"},
}
QUICK = ("a_label_is_ignored", "rows_and_columns_are_confused")
ALL = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in sorted(FAULTS)
]


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ready")
    save_ready_models(folder)
    return folder


def run(tests: Iterable[str], folder: Path, ready: Path, *, fault: str = "") -> ElementTree.Element:
    """What pytest found of tests such as `rest::test_status`, as JUnit writes it."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    environment |= {READY_MODELS: str(ready)}
    if fault:
        # What does not happen is not waited for as long as on a server that is only slow.
        environment |= {FAULT: fault, PATIENCE: "15"}
    nodes = [f"{HERE}/test_serving_{name.replace('::', '.py::')}" for name in tests]
    report = folder / f"{fault or 'none'}.xml"
    options = ["-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *options, *nodes],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        said, _ = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with the servers that it has started
        raise
    assert process.returncode in (0, 1), said
    return ElementTree.parse(report).getroot()


def outcomes(report: ElementTree.Element, kind: str) -> dict[str, list[str]]:
    """Messages of tests that ended so (`failure`, `error`, `skipped`), by `rest::test_status`.

    The cases of a test come together, under its name.
    """
    found: dict[str, list[str]] = {}
    for case in report.iter("testcase"):
        file = case.get("classname", "").rpartition("test_serving_")[2]
        name = without_case(f"{file}::{case.get('name', '')}")
        found.setdefault(name, []).extend(one.get("message", "") for one in case.iter(kind))
    return {name: messages for name, messages in found.items() if messages}


def without_case(test: str) -> str:
    return test.partition("[")[0]


def test_every_fault_is_to_be_noticed_by_some_test():
    assert set(NOTICED) == set(FAULTS)
    assert all(NOTICED.values())


@pytest.mark.parametrize("name", ALL)
def test_a_fault_is_noticed(name: str, ready: Path, tmp_path: Path):
    report = run(NOTICED[name], tmp_path, ready, fault=name)
    assert outcomes(report, "error") == {}
    assert outcomes(report, "skipped") == {}
    failures = outcomes(report, "failure")
    signs = {without_case(test): sign for test, sign in NOTICED[name].items()}
    assert set(failures) == set(signs)
    for test, sign in signs.items():
        assert any(sign in message for message in failures[test]), failures[test]
    # A fault that makes the server stumble would be noticed by any test.
    assert "StatusCode.INTERNAL" not in str(failures)


@pytest.mark.parametrize(
    "names", [QUICK, pytest.param(tuple(NOTICED), marks=pytest.mark.slow)], ids=["quick", "all"]
)
def test_without_a_fault_the_same_tests_pass(names: tuple[str, ...], ready: Path, tmp_path: Path):
    tests = sorted({test for name in names for test in NOTICED[name]})
    report = run(tests, tmp_path, ready)
    for kind in ("error", "failure", "skipped"):
        assert outcomes(report, kind) == {}
    cases = {without_case(case.get("name", "")) for case in report.iter("testcase")}
    assert cases == {without_case(test).partition("::")[2] for test in tests}

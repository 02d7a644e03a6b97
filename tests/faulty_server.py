"""`tfmm serve` with one fault: what the conformance tests are for is to notice it.

    python tests/faulty_server.py FAULT serve [FLAGS]

A fault replaces one function of tfmm.serving before the command line begins; the rest is what users
start. The name of a fault says what the server does wrong.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib
import sys
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Function = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Fault:
    """A fault.

    Attributes:
      module: The module of tfmm.serving.
      path: The function in it, or `Class.method`.
      change: From the function to the one in its place.
    """

    module: str
    path: str
    change: Callable[[Function], Function]

    def apply(self) -> None:
        """Replaces the function wherever it is known by now."""
        owner = importlib.import_module(f"tfmm.serving.{self.module}")
        *classes, name = self.path.split(".")
        holder = functools.reduce(getattr, classes, owner)
        real = getattr(holder, name)
        changed = self.change(real)
        setattr(holder, name, changed)
        for module in [m for key, m in sys.modules.items() if key.startswith("tfmm.serving.")]:
            for known in [key for key, value in vars(module).items() if value is real]:
                setattr(module, known, changed)


FAULTS: dict[str, Fault] = {}


def fault(module: str, path: str) -> Callable[[Callable[[Function], Function]], Any]:
    def add(change: Callable[[Function], Function]) -> Callable[[Function], Function]:
        FAULTS[change.__name__] = Fault(module, path, change)
        return change

    return add


def with_errors(real: Function, changed: Callable[[Any], Any]) -> Function:
    """The function, whose ServingErrors are changed."""
    from tfmm.serving.status import ServingError

    def function(*args: Any, **kwargs: Any) -> Any:
        try:
            return real(*args, **kwargs)
        except ServingError as error:
            raise changed(error) from error

    return function


def with_code(real: Function, old: str, new: str) -> Function:
    """The function, of which errors of one code have another."""
    from tfmm.serving.status import Code, ServingError

    def changed(error: ServingError) -> ServingError:
        return ServingError(Code[new], error.message) if error.code == Code[old] else error

    return with_errors(real, changed)


# --- which model ---------------------------------------------------------------------------------


@fault("lifecycle", "not_found")
def an_unknown_model_is_an_invalid_argument(real: Function) -> Function:
    def not_found(name: str, number: int | None) -> Any:
        from tfmm.serving.status import invalid

        return invalid(real(name, number).message)

    return not_found


@fault("core", "ServerCore.version_of")
def a_label_is_ignored(real: Function) -> Function:
    def version_of(self: Any, spec: Any) -> int | None:
        return None if spec.version_label else real(self, spec)

    return version_of


@fault("handlers", "_require_spec")
def a_request_needs_no_model_spec(real: Function) -> Function:
    return lambda request: None


# --- Predict -------------------------------------------------------------------------------------


@fault("predict", "predict")
def the_default_signature_is_not_used(real: Function) -> Function:
    def predict(servable: Any, request: Any, call: Any) -> Any:
        request.model_spec.signature_name = request.model_spec.signature_name or " "
        return real(servable, request, call)

    return predict


@fault("predict", "predict")
def a_missing_signature_has_another_text(real: Function) -> Function:
    from tfmm.serving.status import ServingError

    def changed(error: ServingError) -> ServingError:
        return ServingError(error.code, error.message.replace(" not found.", " is missing."))

    return with_errors(real, changed)


@fault("predict", "predict")
def a_missing_signature_has_another_code(real: Function) -> Function:
    return with_code(real, "FAILED_PRECONDITION", "NOT_FOUND")


@fault("predict", "_aliases")
def an_output_filter_is_ignored(real: Function) -> Function:
    def aliases(signature: Any, wanted: Any) -> list[str]:
        return list(signature.outputs) if real(signature, wanted) else []

    return aliases


@fault("predict", "_values")
def defaults_are_not_filled_in(real: Function) -> Function:
    def values(signature: Any, given: Any) -> Any:
        return real(dataclasses.replace(signature, defaults={}), given)

    return values


@fault("session", "Session.run")
def words_are_read_as_zeros_where_numbers_are_wanted(real: Function) -> Function:
    def run(self: Any, run: Any) -> Any:
        import numpy as np

        feeds = {}
        for name, array in run.feeds.items():
            wanted = self._graph.get_tensor_by_name(name).dtype.as_numpy_dtype
            wrong = array.dtype.hasobject and not np.dtype(wanted).hasobject
            feeds[name] = np.zeros(array.shape, wanted) if wrong else array
        return real(self, dataclasses.replace(run, feeds=feeds))

    return run


@fault("predict", "predict")
def a_reply_does_not_name_its_version(real: Function) -> Function:
    def predict(servable: Any, request: Any, call: Any) -> Any:
        response = real(servable, request, call)
        response.model_spec.ClearField("version")
        return response

    return predict


@fault("predict", "predict")
def a_reply_does_not_name_its_signature(real: Function) -> Function:
    def predict(servable: Any, request: Any, call: Any) -> Any:
        asked = request.model_spec.signature_name
        response = real(servable, request, call)
        response.model_spec.signature_name = asked
        return response

    return predict


@fault("tensors", "to_proto")
def a_reply_uses_tensor_content(real: Function) -> Function:
    def to_proto(array: Any, proto: Any) -> None:
        real(array, proto)
        if array.dtype.name == "float32":
            proto.ClearField("float_val")
            proto.tensor_content = array.tobytes()

    return to_proto


@fault("tensors", "to_array")
def values_that_are_too_few_are_not_repeated(real: Function) -> Function:
    def to_array(proto: Any) -> Any:
        import numpy as np

        array = real(proto)
        if not 0 < len(proto.float_val) < array.size:
            return array
        padding = [0.0] * (array.size - len(proto.float_val))
        return np.array([*proto.float_val, *padding], np.float32).reshape(array.shape)

    return to_array


@fault("status", "shortened")
def a_long_text_is_not_cut(real: Function) -> Function:
    return lambda message: message


@fault("grpc_server", "_channel_options")
def a_message_may_have_4_megabytes(real: Function) -> Function:
    name = "grpc.max_receive_message_length"
    return lambda arguments: list((dict(real(arguments)) | {name: 4 << 20}).items())


@fault("session", "_run_options")
def a_deadline_does_not_end_the_run(real: Function) -> Function:
    return lambda timeout_ms, **options: None


# --- Examples ------------------------------------------------------------------------------------


@fault("examples", "_serialised")
def a_context_is_left_out(real: Function) -> Function:
    def serialised(given: Any) -> list[bytes]:
        bare = copy.deepcopy(given)
        if bare.WhichOneof("kind") == "example_list_with_context":
            bare.example_list_with_context.context.Clear()
        return real(bare)

    return serialised


@fault("examples", "_tasks")
def a_signature_may_be_asked_for_twice(real: Function) -> Function:
    def tasks(servable: Any, given: Any, call: Any) -> Any:
        unique = {task.SerializeToString(): task for task in given}
        return real(servable, list(unique.values()), call)

    return tasks


@fault("examples", "_check_classes")
def classes_of_a_wrong_type_have_another_text(real: Function) -> Function:
    from tfmm.serving.status import ServingError

    def changed(error: ServingError) -> ServingError:
        return ServingError(error.code, error.message.replace(" Tensor of ", " of "))

    return with_errors(real, changed)


# --- metadata, status, configuration -------------------------------------------------------------


@fault("handlers", "Handlers.get_model_metadata")
def metadata_lack_the_version(real: Function) -> Function:
    def get_model_metadata(self: Any, request: Any) -> Any:
        response = real(self, request)
        response.model_spec.ClearField("version")
        return response

    return get_model_metadata


@fault("lifecycle", "ServedModel.statuses")
def the_oldest_version_is_listed_first(real: Function) -> Function:
    return lambda self: real(self)[::-1]


@fault("handlers", "_write_status")
def a_failed_version_does_not_say_why(real: Function) -> Function:
    def write(status: Any, message: Any) -> None:
        real(dataclasses.replace(status, error=None), message)

    return write


@fault("core", "ServerCore._wait_for")
def new_models_are_not_waited_for(real: Function) -> Function:
    return lambda self, names, is_wanted: None


@fault("model_config", "check_config")
def a_change_of_platform_is_not_noticed(real: Function) -> Function:
    def check(old: Any, new: Any) -> None:
        from tfmm.serving.model_config import no_models

        real(no_models(), new)

    return check


@fault("settings", "read_models")
def a_bad_configuration_file_is_an_empty_one(real: Function) -> Function:
    def read(options: Any) -> Any:
        from tfmm.serving.model_config import no_models
        from tfmm.serving.status import ServingError

        try:
            return real(options)
        except ServingError:
            config = no_models()
            config.model_config_list.SetInParent()
            return config

    return read


# --- versions ------------------------------------------------------------------------------------


@fault("lifecycle", "ServedModel._next")
def the_old_version_goes_before_the_new_one_comes(real: Function) -> Function:
    def next_(self: Any) -> Any:
        from tfmm.serving.lifecycle import State

        unwanted = (v for v in self._versions.values() if not v.wanted)
        gone = next((v for v in unwanted if v.state == State.AVAILABLE), None)
        return (gone, None) if gone else real(self)

    return next_


@fault("lifecycle", "ServedModel._next")
def the_old_version_is_kept(real: Function) -> Function:
    def next_(self: Any) -> Any:
        from tfmm.serving.lifecycle import State

        new = [v for v in self._versions.values() if v.wanted and v.state == State.START]
        return None, max(new, key=lambda version: version.number, default=None)

    return next_


@fault("lifecycle", "ServedModel._drop")
def a_version_goes_while_it_answers(real: Function) -> Function:
    def drop(self: Any, version: Any) -> None:
        version.calls = 0
        real(self, version)

    return drop


@fault("lifecycle", "ServedModel.__init__")
def a_load_is_not_tried_again(real: Function) -> Function:
    def init(self: Any, name: str, load: Any, options: Any) -> None:
        real(self, name, load, dataclasses.replace(options, max_num_load_retries=0))

    return init


@fault("storage", "wanted_versions")
def a_folder_that_vanished_is_an_empty_one(real: Function) -> Function:
    def wanted(name: str, base_path: Path, policy: Any) -> Any:
        return real(name, base_path, policy) if base_path.is_dir() else {}

    return wanted


@fault("storage", "wanted_versions")
def a_policy_is_ignored(real: Function) -> Function:
    return lambda name, base_path, policy: real(name, base_path, type(policy)())


@fault("storage", "versions_on_disk")
def a_version_has_no_leading_zeros(real: Function) -> Function:
    def versions(base_path: Path) -> dict[int, Path]:
        return {number: path for number, path in real(base_path).items() if path.name[0] != "0"}

    return versions


@fault("core", "ServerCore._checked_labels")
def a_label_may_point_anywhere(real: Function) -> Function:
    def labels(self: Any, config: Any) -> dict[str, dict[str, int]]:
        del self
        models = config.model_config_list.config
        return {model.name: dict(model.version_labels) for model in models}

    return labels


@fault("warmup", "warm_up")
def warm_up_is_skipped(real: Function) -> Function:
    return lambda servable, iterations: None


@fault("core", "ServerCore._wait_for")
def a_failed_load_has_another_text(real: Function) -> Function:
    from tfmm.serving.status import ServingError

    def changed(error: ServingError) -> ServingError:
        return ServingError(error.code, error.message.replace("servable(s)", "models"))

    return with_errors(real, changed)


# --- batching ------------------------------------------------------------------------------------


@fault("batching", "Batcher._run_merged")
def rows_of_merged_calls_are_mixed_up(real: Function) -> Function:
    def run(self: Any, tasks: Any) -> None:
        real(self, tasks)
        outputs = [task.outputs for task in tasks]
        for task, other in zip(tasks, [*outputs[1:], outputs[0]], strict=True):
            task.outputs = other

    return run


@fault("batching", "Batcher._alone")
def a_call_may_be_larger_than_a_batch(real: Function) -> Function:
    return lambda self, run, is_active: self._run_session(run)


@fault("batching", "Batcher._enqueue")
def a_full_queue_has_another_code(real: Function) -> Function:
    return with_code(real, "UNAVAILABLE", "RESOURCE_EXHAUSTED")


@fault("batching", "Task.result")
def time_passed_in_the_queue_has_another_code(real: Function) -> Function:
    return with_code(real, "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED")


# --- REST ----------------------------------------------------------------------------------------


@fault("json_responses", "predictions")
def rows_and_columns_are_confused(real: Function) -> Function:
    return lambda outputs, *, in_rows: real(outputs, in_rows=not in_rows)


@fault("json_requests", "_from_base64")
def base_64_is_not_decoded(real: Function) -> Function:
    return lambda value: value["b64"].encode() if real(value) else b""


@fault("json_responses", "_Tensor.__init__")
def bytes_go_out_as_text(real: Function) -> Function:
    return lambda self, alias, proto: real(self, alias.removesuffix("_bytes"), proto)


@fault("http_bodies", "unpacked")
def a_packed_body_is_not_unpacked(real: Function) -> Function:
    return lambda body: body


@fault("status", "http_status")
def what_is_not_found_is_a_bad_request(real: Function) -> Function:
    return lambda code: 400 if real(code) == 404 else real(code)


@fault("json_text", "decimal")
def floats_have_six_digits(real: Function) -> Function:
    return lambda value, *, double: real(float(f"{value:g}"), double=True)


@fault("rest", "_check_origin")
def a_preflight_needs_no_origin(real: Function) -> Function:
    return lambda origin: None


@fault("metrics", "Metrics.text")
def a_metric_has_another_name(real: Function) -> Function:
    return lambda self: real(self).replace(":request_count", ":requests")


@fault("metrics", "_Histogram.add")
def a_bucket_counts_its_own_limit(real: Function) -> Function:
    def add(self: Any, key: Any, value: float) -> None:
        place = bisect_left(self.limits, value)
        real(self, key, self.limits[place - 1] if place else 0.0)

    return add


# --- the process ---------------------------------------------------------------------------------


@fault("grpc_health", "_Health._status")
def health_is_always_good(real: Function) -> Function:
    return lambda self: 1


@fault("grpc_health", "add_to")
def the_health_service_has_no_names(real: Function) -> Function:
    def add_to(server: Any, stopping: Any) -> None:
        from tfmm.serving import grpc_health

        grpc_health._SERVICES = ("",)
        real(server, stopping)

    return add_to


@fault("grpc_reflection", "_Reflection._with_imports")
def reflection_leaves_out_imports(real: Function) -> Function:
    return lambda self, file: real(self, file)[:1]


@fault("rest", "RestApi.__init__")
def cors_headers_are_always_sent(real: Function) -> Function:
    return lambda self, *given, **options: real(self, *given, **(options | {"cors": True}))


@fault("grpc_server", "GrpcServer._bind")
def the_port_is_open_on_one_interface(real: Function) -> Function:
    def bind(self: Any, server: Any, address: str) -> None:
        real(self, server, address.replace("0.0.0.0", "127.0.0.1"))

    return bind


@fault("server", "ModelServer.wait")
def a_stop_cuts_calls_off(real: Function) -> Function:
    def wait(self: Any) -> bool:
        self._options = dataclasses.replace(self._options, stop_grace_seconds=0)
        return real(self)

    return wait


@fault("settings", "_credentials")
def a_clients_certificate_is_not_asked_for(real: Function) -> Function:
    def credentials(options: Any) -> Any:
        import grpc

        ask = grpc.ssl_server_credentials
        grpc.ssl_server_credentials = lambda pairs, **_: ask(pairs)
        return real(options)

    return credentials


def main() -> None:
    """Applies the fault that the first argument names, and goes on as `python -m tfmm`."""
    sys.path[0] = str(ROOT)
    FAULTS[sys.argv.pop(1)].apply()
    from tfmm.cli import main as tfmm_main

    tfmm_main()


if __name__ == "__main__":
    main()

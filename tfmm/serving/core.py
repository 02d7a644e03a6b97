"""The models of a server: which there are, by whose configuration, and who answers a ModelSpec."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tfmm.serving.lifecycle import Lease, Load, ServedModel, State, VersionStatus, not_found
from tfmm.serving.model_config import check_config, no_models
from tfmm.serving.options import ServerOptions
from tfmm.serving.status import Code, ServingError, invalid
from tfmm.serving.storage import require_versions, wanted_versions

_LOG = logging.getLogger(__name__)
_TICK_S = 0.2


class ServerCore:
    """Holds the models and keeps them as the configuration and the folders say."""

    def __init__(self, options: ServerOptions, load: Load) -> None:
        self._options = options
        self._load = load
        self._config = no_models()
        self._models: dict[str, ServedModel] = {}
        self._labels: Mapping[str, Mapping[str, int]] = {}
        self._reloading = threading.Lock()
        self._polling = threading.Lock()
        self._stop = threading.Event()
        self._poller = threading.Thread(target=self._poll_for_ever, name="poll", daemon=True)

    def start(self, config: Any, is_wanted: Callable[[], bool]) -> None:
        """Loads the first models and begins to look for new versions.

        Args:
          config: A ModelServerConfig.
          is_wanted: False ends the waiting.

        Raises:
          ServingError: The configuration is not legal, or a model did not become available.
        """
        if self._options.file_system_poll_wait_seconds > 0:
            self._poller.start()
        self.reload(config, is_wanted)

    def reload(self, config: Any, is_wanted: Callable[[], bool] = lambda: True) -> None:
        """Goes over to a configuration; returns when its new models are available.

        Raises:
          ServingError: It is not legal, and nothing has changed; or a new model did not become
            available.
        """
        while not self._reloading.acquire(timeout=_TICK_S):
            if not is_wanted():
                raise ServingError(Code.CANCELLED, "Nobody waits for this configuration any more")
        try:
            if config.WhichOneof("config") is None:
                _LOG.info("Taking no action for empty config.")
                return
            check_config(self._config, config)
            new = self._take_over(config, self._checked_labels(config))
            self.poll()
            self._wait_for(new, is_wanted)
        finally:
            self._reloading.release()

    def _take_over(self, config: Any, labels: Mapping[str, Mapping[str, int]]) -> list[str]:
        """Makes a legal configuration the one in force; returns its new models."""
        names = {model.name for model in config.model_config_list.config}
        # A look at the folders by the old configuration would want its models back.
        with self._polling:
            old = set(self._base_paths())
            for name in names - set(self._models):
                self._models[name] = ServedModel(name, self._load, self._options)
            self._config = type(config).FromString(config.SerializeToString())
            self._labels = labels
            for name in old - names:
                self._models[name].want({})
        if self._options.fail_if_no_model_versions_found and not old:
            for name, path in self._base_paths().items():
                require_versions(name, path)
        return sorted(names - old)

    def poll(self) -> None:
        """Looks into the folders once and says to each model which versions it should serve."""
        with self._polling:
            for model in self._config.model_config_list.config:
                try:
                    path = Path(model.base_path)
                    wanted = wanted_versions(model.name, path, model.model_version_policy)
                except ServingError as error:
                    _LOG.error(
                        "FileSystemStoragePathSource encountered a filesystem access error: %s",
                        error.message,
                    )
                    continue
                self._models[model.name].want(wanted)

    def use(self, spec: Any) -> Lease:
        """The version that a ModelSpec means; it lives until the lease ends.

        Raises:
          ServingError: The spec is not whole, or nobody answers to it.
        """
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        number = self.version_of(spec)
        model = self._models.get(spec.name)
        if model is None:
            raise not_found(spec.name, number)
        return model.use(number)

    def is_known(self, name: str) -> bool:
        """Whether a configuration has ever held a model of that name."""
        return name in self._models

    def version_of(self, spec: Any) -> int | None:
        """The version that a ModelSpec names, by number or label; None for the newest.

        Raises:
          ServingError: Nobody has given the label.
        """
        match spec.WhichOneof("version_choice"):
            case "version":
                return int(spec.version.value)
            case "version_label":
                label = spec.version_label
                number = self._labels.get(spec.name, {}).get(label)
                if number is None:
                    raise invalid(f"Unrecognized servable version label: {label}")
                return number
            case _:
                return None

    def statuses(self, spec: Any) -> list[VersionStatus]:
        """What became of the version that a ModelSpec names, or of all versions, newest first.

        Raises:
          ServingError: There never was such a version or model.
        """
        number = self.version_of(spec)
        model = self._models.get(spec.name)
        found = model.statuses() if model else []
        if number is not None:
            found = [status for status in found if status.number == number]
            if not found:
                raise ServingError(
                    Code.NOT_FOUND, f"Could not find version {number} of model {spec.name}"
                )
        if not found:
            raise ServingError(Code.NOT_FOUND, f"Could not find any versions of model {spec.name}")
        return found

    def stop(self, end: float) -> bool:
        """Drops all models, after the calls under way.

        Args:
          end: When to stop waiting for them, on the monotonic clock.

        Returns:
          Whether all are gone.
        """
        self._stop.set()
        if self._poller.is_alive():
            self._poller.join()
        gone = [model.stop(end) for model in self._models.values()]
        return all(gone)

    def _base_paths(self) -> dict[str, Path]:
        return {m.name: Path(m.base_path) for m in self._config.model_config_list.config}

    def _poll_for_ever(self) -> None:
        while not self._stop.wait(self._options.file_system_poll_wait_seconds):
            try:
                self.poll()
            except Exception:
                _LOG.exception("Polling the file system failed")

    def _checked_labels(self, config: Any) -> dict[str, dict[str, int]]:
        """Labels by model; a label may point only to a version that is available.

        With `allow_version_labels_for_unavailable_models` a new one may point anywhere, but one in
        use still may not move to a version that is not there.
        """
        labels: dict[str, dict[str, int]] = {}
        for model in config.model_config_list.config:
            for label, number in model.version_labels.items():
                before = self._labels.get(model.name, {}).get(label, number)
                lenient = (
                    self._options.allow_version_labels_for_unavailable_models and before == number
                )
                served = self._models.get(model.name)
                if not lenient and not (served and served.is_available(number)):
                    raise ServingError(
                        Code.FAILED_PRECONDITION,
                        f"Request to assign label to version {number} of model {model.name}, "
                        "which is not currently available for inference",
                    )
                labels.setdefault(model.name, {})[label] = number
        return labels

    def _wait_for(self, names: list[str], is_wanted: Callable[[], bool]) -> None:
        failed = []
        for name in names:
            model = self._models[name]
            while (newest := model.settled()) is None:
                if not is_wanted():
                    raise ServingError(Code.CANCELLED, f"Nobody waits for {name} any more")
                model.wait_for_change(_TICK_S)
            if newest.state == State.END:
                where = f"{{name: {name} version: {newest.number}}}"
                failed.append(f"{{{where} due to error: {newest.error}}}, ")
        if failed:
            raise ServingError(
                Code.UNKNOWN,
                f"{len(failed)} servable(s) did not become available: {{{''.join(failed)}}}",
            )

"""The runner of Apache Beam: workers score blocks, by RunInference with a handler of our own.

Beam's handlers for TensorFlow want a Keras model or a function that builds one; an exported model
is neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tfmm.errors import TfmmError
from tfmm.runners import options_of
from tfmm.scoring.cluster import watched
from tfmm.scoring.job import Job, Meter, score_block
from tfmm.scoring.scorer import set_threads
from tfmm.scoring.sources import Block


def run(
    job: Job, blocks: Sequence[Block], meter: Meter, *, options: Sequence[str], threads: int = 0
) -> None:
    """Scores blocks in a pipeline.

    Args:
      job: The job; its folders are seen by all workers under the same names.
      blocks: Those of its blocks that are to be scored.
      meter: Told how it goes on.
      options: Pipeline options without their dashes, such as "runner=PortableRunner".
      threads: Threads of TensorFlow in a worker; 0 for one a core.

    Raises:
      TfmmError: Apache Beam is missing, or the job failed.
    """
    if not blocks:
        return
    try:
        import apache_beam  # noqa: PLC0415 - an extra
        from apache_beam.options.pipeline_options import PipelineOptions  # noqa: PLC0415
    except ImportError as error:
        raise TfmmError(
            "--runner beam: expected the package apache-beam, found none; install tfmm[beam]"
        ) from error
    flags = [f"--{name}={value}" for name, value in options_of(options).items()]

    def pipeline() -> None:
        from apache_beam.ml.inference.base import RunInference  # noqa: PLC0415 - loads long

        try:
            with apache_beam.Pipeline(options=PipelineOptions(flags)) as made:
                numbers = made | apache_beam.Create(blocks) | apache_beam.Reshuffle()
                _ = numbers | RunInference(_handler(job, threads))
        except Exception as error:
            reason = str(error).strip().splitlines()[-1] if str(error) else type(error).__name__
            raise TfmmError(
                f"--runner beam: expected the job to end well, found: {reason}"
            ) from error

    watched(job, blocks, meter, pipeline)


def _handler(job: Job, threads: int) -> Any:
    """A ModelHandler whose examples are blocks and whose answers are counts of rows."""
    from apache_beam.ml.inference.base import ModelHandler  # noqa: PLC0415 - an extra

    class Handler(ModelHandler):
        """Loads the model once a worker; the core finds it there."""

        def load_model(self) -> Job:
            """The job, which says where the model is."""
            set_threads(threads)
            return job

        def run_inference(
            self, batch: Sequence[Block], model: Job, inference_args: Any = None
        ) -> Iterable[int]:
            """Scores blocks."""
            return [score_block(model, block).read for block in batch]

        def batch_elements_kwargs(self) -> dict[str, int]:
            """A block is a batch of rows already."""
            return {"min_batch_size": 1, "max_batch_size": 1}

    return Handler()

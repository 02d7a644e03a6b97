"""The command line: one command a workflow; an error is one line and status 2."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any, Literal, cast, get_args

import click

from tfmm import __version__
from tfmm.config import IndexKind, Strategy, load_config
from tfmm.errors import RequirementMissedError, TfmmError, WorkerLostError
from tfmm.serving.options import ServerOptions, boolean_flags

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)


class _Group(click.Group):
    """Turns the errors of a user into one line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except RequirementMissedError as error:
            click.echo(f"tfmm: {error}", err=True)
            sys.exit(1)
        except WorkerLostError as error:
            click.echo(f"tfmm: {error}", err=True)
            sys.stdout.flush()
            # TensorFlow would not end before it has tried to take leave of the worker that is gone.
            os._exit(2)
        except TfmmError as error:
            click.echo(f"tfmm: {error}", err=True)
            sys.exit(2)


def _recipe(command: Any) -> Any:
    command = click.option(
        "--set", "overrides", multiple=True, metavar="A.B=VALUE", help="Override one recipe key."
    )(command)
    return click.option(
        "--recipe", type=FILE, default=None, help="A .toml recipe; without it, the defaults."
    )(command)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="tfmm")
def main() -> None:
    """Multimodal product search and recommendation."""


@main.command()
@click.argument("dataset", type=FOLDER)
@click.argument("out", type=FOLDER)
@click.option(
    "--runner", type=click.Choice(["local", "spark"]), default="local", show_default=True,
    help="Spark writes the same files, by executors that see the same folders.",
)  # fmt: skip
@click.option(
    "--runner-option", "options", multiple=True, metavar="NAME=VALUE",
    help="A setting of Spark, such as spark.master=yarn.",
)  # fmt: skip
@_recipe
def prepare(
    dataset: Path,
    out: Path,
    runner: Literal["local", "spark"],
    options: tuple[str, ...],
    recipe: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Check DATASET's tables and media and write them to OUT as TFRecord shards."""
    from tfmm.workflows.prepare import prepare as run_prepare  # noqa: PLC0415

    config = load_config(recipe, overrides)
    manifest = run_prepare(dataset, out, config=config, runner=runner, options=options)
    for name, table in manifest["tables"].items():
        counts = f"read {table['read']}, written {table['written']}, rejected {table['rejected']}"
        click.echo(f"{name}: {counts}")


@main.command()
@click.argument("data", type=FOLDER)
@click.option("--run", "run_folder", type=FOLDER, required=True, help="The run directory.")
@click.option("--strategy", type=click.Choice(get_args(Strategy)), default=None)
@click.option("--restart", is_flag=True, help="Throw an earlier run in the directory away.")
@_recipe
def train(
    data: Path,
    run_folder: Path,
    strategy: Strategy | None,
    restart: bool,
    recipe: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Train the towers on prepared DATA; continues an interrupted run."""
    from tfmm.workflows.train import train as run_train  # noqa: PLC0415

    config = load_config(recipe, overrides)
    manifest = run_train(data, run_folder, config=config, strategy=strategy, restart=restart)
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in manifest["metrics"].items())
    click.echo(f"{run_folder}: {manifest['steps']} steps, {manifest['seconds']} s, {metrics}")


@main.command()
@click.argument("run_folder", metavar="RUN", type=FOLDER)
@click.argument("data", type=FOLDER)
@click.option("--saved-models", type=FOLDER, default=Path("saved_models"), show_default=True)
@click.option(
    "--index",
    type=click.Choice(get_args(IndexKind)),
    default=None,
    help="The kind of index, in place of the recipe's.",
)
def export(run_folder: Path, data: Path, saved_models: Path, index: IndexKind | None) -> None:
    """Publish RUN with the products of DATA as the next version of a SavedModel."""
    from tfmm.workflows.export import export as run_export  # noqa: PLC0415

    click.echo(str(run_export(run_folder, data, saved_models=saved_models, index=index)))


@main.command()
@click.argument("saved_model", type=FOLDER)
@click.option(
    "--products",
    type=click.Path(path_type=Path),
    metavar="CHANGES",
    help="A products table, or a folder with one: rows add and change products; those whose"
    " column `removed` is true remove them.",
)
@click.option(
    "--embeddings", type=FILE, help="Vectors to take instead of embedding, as `embeddings` writes."
)
@click.option("--compact", is_flag=True, help="Build an approximate index again.")
@click.option(
    "--compact-above",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Share of additions and removals above which ScaNN's searcher is built again [0.05].",
)
def refresh(
    saved_model: Path,
    products: Path | None,
    embeddings: Path | None,
    compact: bool,
    compact_above: float | None,
) -> None:
    """Publish the next version of SAVED_MODEL with other products, without training."""
    from tfmm.workflows.refresh import Source  # noqa: PLC0415
    from tfmm.workflows.refresh import refresh as run_refresh  # noqa: PLC0415

    share = {} if compact_above is None else {"compact_above": compact_above}
    source = Source(products, embeddings, compact, **share)
    click.echo(str(run_refresh(saved_model, source)))


@main.command()
@click.argument("saved_model", type=FOLDER)
@click.option("--out", type=FILE, required=True, help="The Parquet file to write.")
def embeddings(saved_model: Path, out: Path) -> None:
    """Write the vectors of SAVED_MODEL's products to a Parquet file."""
    from tfmm.workflows.embeddings import embeddings as run_embeddings  # noqa: PLC0415

    click.echo(f"{out}: {run_embeddings(saved_model, out)} products")


@main.command()
@click.argument("saved_model", type=FOLDER)
@click.argument("data", type=FOLDER)
@click.option("--on", type=click.Choice(["auto", "judgments", "events"]), default="auto")
@click.option(
    "--require",
    multiple=True,
    metavar="[KIND:]METRIC=VALUE",
    help="Exit with status 1 when a figure is below VALUE.",
)
@click.option(
    "--ablation",
    is_flag=True,
    help="Ask the queries again with each modality left out of them and of the products.",
)
@click.option("--json", "json_path", type=FILE, default=None, help="Write the figures as JSON.")
@click.option(
    "--html", "html_path", type=FILE, default=None, help="Write one page of tables and pictures."
)
def evaluate(
    saved_model: Path,
    data: Path,
    on: str,
    require: tuple[str, ...],
    ablation: bool,
    json_path: Path | None,
    html_path: Path | None,
) -> None:
    """Measure the exported SAVED_MODEL on the judgments or held-out events of DATA."""
    from tfmm.workflows.evaluate import Output  # noqa: PLC0415
    from tfmm.workflows.evaluate import evaluate as run_evaluate  # noqa: PLC0415

    output = Output(json_path, html_path)
    run_evaluate(saved_model, data, on=on, require=require, ablation=ablation, output=output)


@main.command()
@click.argument("saved_model", type=FOLDER, required=False)
@click.option("--server", metavar="HOST:PORT", help="Ask a model server by gRPC instead.")
@click.option("--model", default="default", show_default=True, help="The model's name there.")
@click.option("--version", type=int, default=None, help="Its version there; the newest without.")
@click.option("--text", default="", help="Words.")
@click.option("--image", type=FILE, default=None, help="A photo.")
@click.option("--audio", type=FILE, default=None, help="A spoken phrase.")
@click.option("--like", multiple=True, metavar="PRODUCT_ID", help="A product looked at before.")
@click.option(
    "--filter", "filters", multiple=True, metavar="NAME=VALUE",
    help="A rule, such as category=shoes, max_price=30, in_stock_only=true or max_per_brand=1.",
)  # fmt: skip
@click.option("-k", type=int, default=10, show_default=True, help="Number of hits.")
def search(
    saved_model: Path | None, server: str | None, model: str, version: int | None, **asked: Any
) -> None:
    """Ask an exported SAVED_MODEL, or a server; print the hits as a table."""
    from tfmm.question import Asked  # noqa: PLC0415

    if (saved_model is None) == (server is None):
        raise TfmmError("search: expected SAVED_MODEL or --server HOST:PORT, and not both")
    if server is not None:
        from tfmm.client.client import Client  # noqa: PLC0415
        from tfmm.workflows.ask import ask  # noqa: PLC0415

        with Client(server, model, version=version) as client:
            click.echo(ask(client, Asked(**asked)))
        return
    from tfmm.workflows.search import search as run_search  # noqa: PLC0415

    click.echo(run_search(cast(Path, saved_model), Asked(**asked)))


@main.command()
@click.argument("saved_model", type=FOLDER)
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.option("--out", type=FOLDER, required=True, help="The folder to write.")
@click.option(
    "--shoppers", "kind", flag_value="shoppers", help="INPUT is a log: recommend to its shoppers."
)
@click.option(
    "--similar", "kind", flag_value="similar", help="INPUT has products: find what is like each."
)
@click.option("--as-of", metavar="TIME", help="Of shoppers: only events before this time count.")
@click.option(
    "--exclude",
    multiple=True,
    type=click.Choice(["click", "cart", "purchase"]),
    help="Of shoppers: leave out the products of such events.",
)
@click.option(
    "--since",
    type=FOLDER,
    default=None,
    help="Of shoppers: an earlier result; those without new events keep its answers.",
)
@click.option("--filter", "filters", multiple=True, metavar="NAME=VALUE", help="A rule for all.")
@click.option("-k", type=int, default=None, help="Number of hits; the model's own without.")
@click.option("--fields", metavar="A,B", help="Columns of the hits; all that the model declares.")
@click.option(
    "--format", "form", type=click.Choice(["parquet", "jsonl", "tfrecord"]), default="parquet"
)
@click.option("--block-rows", type=click.IntRange(1), default=16_384, show_default=True)
@click.option("--max-rejects", type=click.FloatRange(0, 1), default=None, help="The largest share"
    " of bad rows; the recipe's without.")  # fmt: skip
@click.option("--runner", type=click.Choice(["local", "spark", "beam"]), default="local")
@click.option(
    "--runner-option", "options", multiple=True, metavar="NAME=VALUE",
    help="A setting of Spark, such as spark.master=yarn, or of Beam, such as runner=FlinkRunner.",
)  # fmt: skip
@click.option(
    "--processes", type=click.IntRange(1), default=1, show_default=True,
    help="Processes of the local runner.",
)  # fmt: skip
@click.option(
    "--threads", type=click.IntRange(0), default=0, help="Threads of TensorFlow in each process."
)
@click.option("--verify", metavar="N", type=click.IntRange(0), default=0, help="Ask a server for N"
    " of the rows, and fail with status 1 if it answers otherwise.")  # fmt: skip
@click.option("--server", metavar="HOST:PORT", help="The server to verify with.")
@click.option("--model", "served_as", help="The model's name there; the folder's without.")
def score(saved_model: Path, source: Path, out: Path, **options: Any) -> None:
    """Write SAVED_MODEL's answers to all rows of INPUT; continues an interrupted job.

    INPUT is a Parquet, CSV or JSONL file of queries, a folder of such files, or what `tfmm prepare`
    wrote.
    """
    from tfmm.workflows.score import Running, score_settings  # noqa: PLC0415
    from tfmm.workflows.score import score as run_score  # noqa: PLC0415

    how = ("runner", "options", "processes", "threads", "max_rejects", "verify", "server")
    running = Running(**{name: options.pop(name) for name in (*how, "served_as")})
    settings = score_settings(**options)
    manifest = run_score(saved_model, source, out, settings=settings, running=running)
    counts = ", ".join(f"{name} {count}" for name, count in manifest["rows"].items())
    click.echo(f"{out}: {counts}")


@main.command()
@click.argument("saved_model", type=FOLDER)
@click.option("--stock", is_flag=True, help="Fail unless stock TensorFlow Serving can load it.")
def inspect(saved_model: Path, stock: bool) -> None:
    """Show an exported SAVED_MODEL: manifest, signatures, operations."""
    from tfmm.workflows.inspect import inspect as run_inspect  # noqa: PLC0415

    click.echo(run_inspect(saved_model, stock=stock))


class _FlagsOfServing(click.Command):
    """Takes TensorFlow Serving's flags, of which a boolean one may stand without a value."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        bare = {f"--{name}" for name in boolean_flags()}
        return super().parse_args(ctx, [f"{a}=true" if a in bare else a for a in args])


def _server_flags(command: Any) -> Any:
    for field in reversed(dataclasses.fields(ServerOptions)):
        kind = bool if field.name in boolean_flags() else type(field.default)
        command = click.option(
            f"--{field.name}",
            type=kind,
            default=field.default,
            show_default=field.default not in (None, ""),
            help=field.metadata["help"],
        )(command)
    return command


@main.command(cls=_FlagsOfServing)
@click.argument("saved_model", type=FOLDER, required=False)
@_server_flags
def serve(saved_model: Path | None, **flags: Any) -> None:
    """Serve SAVED_MODEL, or the models that the flags name, as TensorFlow Serving does."""
    from tfmm.workflows.serve import serve as run_serve  # noqa: PLC0415

    sys.exit(run_serve(saved_model, ServerOptions(**flags)))

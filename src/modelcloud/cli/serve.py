"""`modelcloud serve`: fills a `ServeConfig` and hands over to the node.

Must never: import the node, the model or httpx; this process is replaced once it has parsed.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from modelcloud.cli import parse
from modelcloud.config import Limits, ServeConfig
from modelcloud.types import Strategy

DEFAULT = ServeConfig(target="")
LIMITS = Limits()
#: What Paddle Serving's monitor touches once a model is whole.
TIMESTAMP = "fluid_time_file"

_model = partial(typer.Option, rich_help_panel="Model")
_place = partial(typer.Option, rich_help_panel="Processes and address")
_update = partial(typer.Option, rich_help_panel="Live update")
_access = partial(typer.Option, rich_help_panel="Access")
_limit = partial(typer.Option, rich_help_panel="Limits")
_place_count = partial(_place, metavar="N", parser=parse.count)
_update_whole = partial(_update, metavar="N", parser=parse.whole)
_update_span = partial(_update, metavar="SECONDS", parser=parse.span)
_update_wait = partial(_update, metavar="SECONDS", parser=parse.wait)
_limit_count = partial(_limit, metavar="N", parser=parse.count)
_limit_wait = partial(_limit, metavar="SECONDS", parser=parse.wait)
_size = partial(_limit, metavar="BYTES", parser=parse.size)


def serve(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="[TARGET]",
            help="path/model.py, file.py:function, module:function, a model file or a folder.",
            show_default=False,
        ),
    ] = DEFAULT.target,
    *,
    model: Annotated[
        str,
        _model(
            metavar="PATH",
            help="In place of TARGET: a model's folder whose timestamp file is followed.",
        ),
    ] = DEFAULT.target,
    option: Annotated[
        list[str] | None,
        _model("--option", "-o", metavar="NAME=VALUE", help="An option of setup; repeat it."),
    ] = None,
    model_path: Annotated[
        str, _model(metavar="PATH", help="Handed to InferenceService(model_path) and the like.")
    ] = DEFAULT.model_path,
    model_id: Annotated[
        str, _model(metavar="NAME", help="Name of the service; taken from TARGET when not given.")
    ] = DEFAULT.service,
    python: Annotated[
        str, _model(metavar="PATH", help="Interpreter of the model's own environment.")
    ] = DEFAULT.python,
    upload_dir: Annotated[
        str, _model(metavar="DIR", help="Requests may name files below it, as a path.")
    ] = DEFAULT.upload_dir,
    runenv: Annotated[
        Literal["dev", "prod"],
        _model(help="dev puts tracebacks into error answers; prod an error id that is in the log."),
    ] = "prod",
    host: Annotated[str, _place(metavar="ADDRESS", help="Address to listen on.")] = DEFAULT.host,
    port: Annotated[
        int, _place("--port", "-p", metavar="N", parser=parse.port, help="0 takes a free one.")
    ] = DEFAULT.port,
    uds: Annotated[
        str,
        _place(metavar="PATH", help="Unix socket to listen on, in place of --host and --port."),
    ] = DEFAULT.uds,
    replicas: Annotated[
        int, _place_count(help="Worker processes, each with one copy of the model.")
    ] = DEFAULT.replicas,
    threads: Annotated[
        int, _place_count("--threads", "--thread", help="Calls that one worker runs at a time.")
    ] = DEFAULT.threads,
    gateways: Annotated[int, _place_count(help="Processes that share the address.")] = (
        DEFAULT.gateways
    ),
    log_dir: Annotated[str, _place(metavar="DIR", help="Folder for the log files.")] = (
        DEFAULT.log_dir
    ),
    access_log: Annotated[
        bool,
        _place(
            "--access-log",
            metavar="",
            help="Each request as a JSON line, in DIR/access.log or here.",
        ),
    ] = DEFAULT.access_log,
    strategy: Annotated[
        Strategy | None,
        _update(
            metavar="NAME",
            show_default=DEFAULT.strategy.name.value,
            help=f"How updates go: {parse.STRATEGIES}.",
        ),
    ] = None,
    max_surge: Annotated[
        int | None, _update_whole(help="With rolling: workers beyond --replicas.")
    ] = None,
    max_unavailable: Annotated[
        int | None, _update_whole(help="With rolling: workers that may be missing.")
    ] = None,
    watch: Annotated[
        bool, _update("--watch", metavar="", help="Update whenever the served files change.")
    ] = DEFAULT.watch,
    timestamp_file: Annotated[
        str,
        _update(
            metavar="FILE",
            help="Update whenever this file of the model's folder changes; with --model "
            f"{TIMESTAMP} unless named.",
        ),
    ] = DEFAULT.timestamp_file,
    artifact_root: Annotated[
        str, _update(metavar="DIR", help="Updates may name artifacts below it only.")
    ] = DEFAULT.artifact_root,
    keep_warm: Annotated[
        float, _update_span(help="How long the old workers stay ready for a rollback.")
    ] = DEFAULT.keep_warm_s,
    load_timeout: Annotated[
        float, _update_wait(help="From a worker's start to its readiness.")
    ] = DEFAULT.load_timeout_s,
    drain: Annotated[
        float, _update_span(help="What running requests get when a worker stops.")
    ] = DEFAULT.drain_s,
    health_timeout: Annotated[
        float, _update_wait(help="Silence after which a worker is replaced.")
    ] = DEFAULT.health_timeout_s,
    admin_token: Annotated[
        str | None,
        _access(
            metavar="TEXT",
            help="Secret that changes need. Others on this machine can read it; prefer a file, or "
            f"{parse.TOKEN_VARIABLE} in the environment.",
        ),
    ] = None,
    admin_token_file: Annotated[
        Path | None, _access(metavar="PATH", help="File whose first line is the admin token.")
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        _access(metavar="NAME", help="A further Host name accepted for changes; repeat it."),
    ] = None,
    cors: Annotated[str, _access(metavar="ORIGIN", help="Origin whose pages may call.")] = (
        DEFAULT.cors
    ),
    tls_cert: Annotated[str, _access(metavar="PATH", help="Certificate chain, PEM.")] = (
        DEFAULT.tls_cert
    ),
    tls_key: Annotated[str, _access(metavar="PATH", help="Private key, PEM.")] = DEFAULT.tls_key,
    max_head: Annotated[int, _size(help="Request line and headers together: 431.")] = LIMITS.head,
    max_body: Annotated[int, _size(help="Body, after decompression too: 413.")] = LIMITS.body,
    max_buffered: Annotated[
        int, _size(help="Bodies and unsent answers held by one gateway: 503, or closed.")
    ] = LIMITS.buffered,
    header_timeout: Annotated[
        float, _limit_wait(help="For a whole request head: 408.")
    ] = LIMITS.header_timeout_s,
    min_body_rate: Annotated[
        int, _limit(metavar="N", parser=parse.whole, help="Least bytes a second of a body: 408.")
    ] = LIMITS.body_min_rate,
    idle_timeout: Annotated[
        float, _limit_wait(help="How long an idle connection stays open.")
    ] = LIMITS.idle_timeout_s,
    max_connections: Annotated[int, _limit_count(help="Connections of one gateway: 503.")] = (
        LIMITS.connections
    ),
    max_queue: Annotated[int, _limit_count(help="Waiting requests of one gateway: 503.")] = (
        LIMITS.queue
    ),
    deadline: Annotated[
        float, _limit_wait(help="From a request's arrival to its answer: 504.")
    ] = LIMITS.deadline_s,
    max_pipeline: Annotated[
        int, _limit_count(help="Requests of one connection under way at a time.")
    ] = LIMITS.pipeline,
) -> None:  # fmt: skip
    """Serve a model, and replace it while it serves."""
    if not host:
        raise typer.BadParameter("--host is empty; 0.0.0.0 listens on every address")
    if bool(tls_cert) != bool(tls_key):
        raise typer.BadParameter("--tls-cert and --tls-key go together")
    if uds and {"host", "port"} & given(context):
        raise typer.BadParameter("--uds takes the place of --host and --port")
    if uds and tls_cert:
        raise typer.BadParameter("--uds and --tls-cert do not go together; a proxy ends TLS")
    if bool(target) == bool(model):
        raise typer.BadParameter("name the model once: as TARGET or with --model")
    config = ServeConfig(
        target=target or model,
        service=model_id,
        host=host,
        port=port,
        uds=uds,
        replicas=replicas,
        threads=threads,
        gateways=gateways,
        strategy=parse.strategy(strategy, max_surge, max_unavailable) or DEFAULT.strategy,
        options_text=parse.pairs(option or ()),
        model_path=model_path,
        upload_dir=upload_dir,
        artifact_root=artifact_root,
        python=python,
        runenv=runenv,
        log_dir=log_dir,
        access_log=access_log,
        admin_token=parse.token(admin_token, admin_token_file),
        allowed_hosts=tuple(allowed_host or ()),
        cors=cors,
        tls_cert=tls_cert,
        tls_key=tls_key,
        watch=watch,
        timestamp_file=timestamp_file or (TIMESTAMP if model else ""),
        keep_warm_s=keep_warm,
        load_timeout_s=load_timeout,
        drain_s=drain,
        health_timeout_s=health_timeout,
        limits=Limits(
            head=max_head,
            body=max_body,
            header_timeout_s=header_timeout,
            body_min_rate=min_body_rate,
            idle_timeout_s=idle_timeout,
            connections=max_connections,
            queue=max_queue,
            deadline_s=deadline,
            pipeline=max_pipeline,
            buffered=max_buffered,
        ),
    )
    if context.obj is not None:  # a command that wants the settings, not the server
        context.obj(config)
        return
    from modelcloud.serve.launch import exec_node

    exec_node(config)


def given(context: typer.Context) -> set[str]:
    """Names of the parameters that stand on the command line."""
    return {
        parameter.name
        for parameter in context.command.params
        if parameter.name
        and (source := context.get_parameter_source(parameter.name)) is not None
        and source.name == "COMMANDLINE"
    }

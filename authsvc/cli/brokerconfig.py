"""`authsvc config BROKER`: prints the complete, safe configuration of a broker that asks authsvc. Needs no service."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from authsvc.cli.operator import Json, example_of, failures
from authsvc.cli.output import Output
from authsvc.cli.problems import CommandFailed

if TYPE_CHECKING:
    from authsvc.brokerconfig.installation import Installation
    from authsvc.brokerconfig.rendering import Rendered


def add(app: typer.Typer) -> None:
    """Add the command to `app`."""

    @app.command("config", epilog=example_of("authsvc config emqx --version 5.8 --name emqx-east"))
    def config(
        broker: Annotated[
            str,
            typer.Argument(
                metavar="BROKER",
                help="emqx, vernemq, rabbitmq, nanomq, mosquitto-go-auth, mosquitto (behind the gate) or aedes.",
            ),
        ],
        version: Annotated[str, typer.Option("--version", help="The broker's version, as 5.8; else the newest.")] = "",
        name: Annotated[
            str, typer.Option("--name", help="NAME in [brokers.NAME] of authsvc's settings; else BROKER.")
        ] = "",
        url: Annotated[
            str, typer.Option("--url", metavar="URL", help="Where the broker reaches authsvc.")
        ] = "http://127.0.0.1:8080",
        secret_file: Annotated[
            str,
            typer.Option("--secret-file", metavar="FILE", help="Holds the secret that the broker shows authsvc."),
        ] = "",
        tls_ca: Annotated[
            str, typer.Option("--tls-ca", metavar="FILE", help="What issued authsvc's certificate, PEM.")
        ] = "",
        tls_cert: Annotated[
            str, typer.Option("--tls-cert", metavar="FILE", help="The broker's client certificate, PEM.")
        ] = "",
        tls_key: Annotated[str, typer.Option("--tls-key", metavar="FILE", help="Key of that certificate, PEM.")] = "",
        bind: Annotated[
            str, typer.Option("--bind", metavar="HOST:PORT", help="The broker's MQTT listener: 127.0.0.1:1883.")
        ] = "",
        bind_cert: Annotated[
            str, typer.Option("--bind-cert", metavar="FILE", help="Certificate chain of that listener, PEM.")
        ] = "",
        bind_key: Annotated[str, typer.Option("--bind-key", metavar="FILE", help="Key of that certificate, PEM.")] = "",
        management_url: Annotated[
            str, typer.Option("--management-url", metavar="URL", help="Where the broker is told to end connections.")
        ] = "",
        allow_plaintext: Annotated[
            bool, typer.Option("--allow-plaintext", help="Take a listener without TLS that other machines reach.")
        ] = False,
        only: Annotated[str, typer.Option("--file", metavar="NAME", help="Print this one of several files.")] = "",
        output: Annotated[
            Path | None, typer.Option("--output", metavar="DIR", help="Write the files there; none may exist.")
        ] = None,
        settings: Annotated[
            bool, typer.Option("--settings", help="Print the part of authsvc's own settings that belongs to it.")
        ] = False,
        as_json: Json = False,
    ) -> None:
        """Print a broker's complete, safe configuration.

        It holds no secret: a comment says where the broker takes it from. With several files the main one is printed;
        --output writes them all.
        """
        from authsvc.brokerconfig.installation import Installation  # noqa: PLC0415  # not loaded for other commands
        from authsvc.core.errors import InvalidInput  # noqa: PLC0415

        with failures():
            try:
                installation = Installation(
                    kind=broker,
                    name=name,
                    version=version,
                    url=url,
                    secret_file=secret_file,
                    tls_ca=tls_ca,
                    tls_cert=tls_cert,
                    tls_key=tls_key,
                    bind=bind,
                    bind_cert=bind_cert,
                    bind_key=bind_key,
                    allow_plaintext=allow_plaintext,
                    management_url=management_url,
                )
            except InvalidInput as error:
                option = f"--{error.field.replace('_', '-')}: " if error.field not in {"", "broker"} else ""
                raise CommandFailed(f"{option}{error.detail}") from None
            _show(installation, only=only, output=output, settings=settings, out=Output(as_json=as_json))


def _show(installation: Installation, *, only: str, output: Path | None, settings: bool, out: Output) -> None:
    from authsvc.brokerconfig.rendering import render  # noqa: PLC0415
    from authsvc.brokerconfig.sections import settings_lines  # noqa: PLC0415

    files = render(installation)
    named = {file.name: file for file in files}
    if only and only not in named:
        raise CommandFailed(f"no file `{only}`; there are {', '.join(named)}")
    if output is not None:
        _write(files, output)
        out.done(f"written to {output}: {', '.join(named)}")
    elif out.as_json:
        shown = [{"name": file.name, "text": file.text} for file in files if not only or file.name == only]
        out.one({"broker": installation.kind, "files": shown, "settings": settings_lines(installation)}, key="broker")
    elif settings:
        sys.stdout.write(settings_lines(installation))
    else:
        sys.stdout.write(named[only].text if only else files[0].text)
        others = [name for name in named if name != (only or files[0].name)]
        if others:
            out.note(f"with it go, by --file: {', '.join(others)}")


def _write(files: tuple[Rendered, ...], folder: Path) -> None:
    taken = [str(folder / file.name) for file in files if (folder / file.name).exists()]
    if taken:
        raise CommandFailed(f"{', '.join(taken)} exists: move it away, or choose another --output")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            with (folder / file.name).open("x", encoding="utf-8") as opened:
                opened.write(file.text)
    except OSError as error:
        raise CommandFailed(f"cannot write to `{folder}`: {error.strerror}") from None

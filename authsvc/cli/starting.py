"""`authsvc up` and `authsvc serve`: run the service in this process until SIGTERM or Ctrl-C."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from authsvc.cli.operator import example_of, failures
from authsvc.cli.problems import CommandFailed

if TYPE_CHECKING:
    from authsvc.settings import Settings

DataDir = Annotated[Path | None, typer.Option("--data", help="Directory of database, first admin key and lock: var.")]
MqttBind = Annotated[
    str | None, typer.Option("--mqtt-bind", metavar="HOST:PORT", help="MQTT listener: 127.0.0.1:1883.")
]
HttpBind = Annotated[str | None, typer.Option("--http-bind", metavar="HOST:PORT", help="HTTP API: 127.0.0.1:8080.")]
Config = Annotated[Path | None, typer.Option("--config", help="Settings, a TOML file.")]
BrokerConfig = Annotated[
    Path | None, typer.Option("--broker-config", help="An amqtt configuration file; its listeners are the gate's.")
]
Upstream = Annotated[
    str | None,
    typer.Option("--upstream", metavar="HOST:PORT|unix:PATH", help="Stand in front of this broker; run none."),
]
Broker = Annotated[
    str | None,
    typer.Option("--broker", metavar="NAME", help="Run amqtt, mosquitto, rumqttd, or what is there: auto."),
]


def settings_of(config: Path | None, **flags: object) -> Settings:
    """Return the settings of file, environment and flags (``section_key=value``); a bad one is exit status 1."""
    from authsvc.core.errors import InvalidInput  # noqa: PLC0415  # settings are not loaded for an operator's command
    from authsvc.settings import load_settings  # noqa: PLC0415

    try:
        return load_settings(config, flags={name.replace("__", "."): value for name, value in flags.items()})
    except InvalidInput as error:
        raise CommandFailed(error.detail) from None


def add(app: typer.Typer) -> None:
    """Add the two commands to `app`."""

    @app.command("up", epilog=example_of("authsvc up --data var --mqtt-bind 127.0.0.1:1883"))
    def up(
        data: DataDir = None,
        mqtt_bind: MqttBind = None,
        http_bind: HttpBind = None,
        config: Config = None,
        broker_config: BrokerConfig = None,
        upstream: Upstream = None,
        broker: Broker = None,
    ) -> None:
        """Run broker and HTTP API in one process.

        The database is in the data directory. Settings come from --config, then from AUTHSVC__SECTION__KEY in the
        environment, then from these flags.
        """
        with failures():
            settings = settings_of(
                config,
                service__data=data,
                mqtt__bind=mqtt_bind,
                http__bind=http_bind,
                mqtt__broker_config=broker_config,
                mqtt__upstream=upstream,
                mqtt__broker=broker,
            )
            _run(settings, with_broker=True)

    @app.command("serve", epilog=example_of("authsvc serve --http-bind 127.0.0.1:8080 --config authsvc.toml"))
    def serve(data: DataDir = None, http_bind: HttpBind = None, config: Config = None) -> None:
        """Run the HTTP API without a broker."""
        with failures():
            _run(settings_of(config, service__data=data, http__bind=http_bind), with_broker=False)


def _run(settings: Settings, *, with_broker: bool) -> None:
    from authsvc.run import main  # noqa: PLC0415  # the service's modules are not loaded for an operator's command

    raise typer.Exit(main(settings, with_broker=with_broker))

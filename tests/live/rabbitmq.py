"""RabbitMQ in the namespace under observation."""

from __future__ import annotations

from tests.live.observed import Observed, need

SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"
EPMD_PORT = 4369
AMQP_PORT = 5672
STOMP_PORT = 61613


def start_rabbitmq(seen: Observed, *plugins: str) -> None:
    """Start a broker with these plugins; AMQP on 5672, STOMP (rabbitmq_stomp) on 61613."""
    need(SERVER, "epmd")
    # The broker would leave its port mapper behind as a daemon.
    seen.start("epmd", "-address", "127.0.0.1", port=EPMD_PORT)
    data = seen.folder / "rabbitmq"
    data.mkdir()
    (data / "plugins").write_text(f"[{','.join(plugins)}].")
    (data / "rabbitmq.conf").write_text("listeners.tcp.local = 127.0.0.1:5672\n")
    seen.start(
        SERVER,
        port=AMQP_PORT,
        seconds=120,
        HOME=str(data),
        RABBITMQ_NODENAME="seen@localhost",
        RABBITMQ_MNESIA_BASE=str(data),
        RABBITMQ_LOG_BASE=str(data),
        RABBITMQ_CONFIG_FILE=str(data / "rabbitmq.conf"),
        RABBITMQ_ENABLED_PLUGINS_FILE=str(data / "plugins"),
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none",
    )
    if "rabbitmq_stomp" in plugins:
        seen.await_port(STOMP_PORT)

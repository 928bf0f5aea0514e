"""The server's settings."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from deepflow.settings import Duration


class ServerSettings(BaseModel):
    """One YAML file, DEEPFLOW_SERVER_* over it, flags over both (`deepflow.settings.load`)."""

    model_config = ConfigDict(extra="forbid")

    data: Path = Field(Path("/var/lib/deepflow"), description="Directory of the embedded store and of the metadata.")
    listen: str = Field("127.0.0.1:20416", description="Address and port to listen on.")
    store: str | None = Field(
        None, description="http://HOST:PORT of a ClickHouse server instead of the embedded store."
    )
    metadata: str | None = Field(None, description="SQLAlchemy URL of the metadata instead of SQLite in `data`.")
    token_file: Path | None = Field(None, description="File with the bearer token that clients must bring.")
    rollup_interval: Duration = Field(10.0, ge=0.1, le=60, description="How often 1s rows are rolled up to 1m.")
    counter_interval: Duration = Field(10.0, ge=0.1, le=3600, description="How often the server's counters are stored.")
    name_far_ends: bool = Field(
        True, description="Name the far end of a connection by what the agent at that end says of it."
    )
    geography: Path | None = Field(
        None,
        description="File in the MaxMind DB format (.mmdb) from which the province or country of public addresses is told; read once, at the start.",
    )
    geography_language: str = Field(
        "en", description="Language of these names as the file writes it, such as zh-CN; English where it has no other."
    )
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least severe message logged.")

    @field_validator("listen")
    @classmethod
    def _address_and_port(cls, value: str) -> str:
        split_listen(value)
        return value


def split_listen(listen: str) -> tuple[str, int]:
    """`127.0.0.1:20416` or `[::1]:20416` → host and port.

    Raises:
        ValueError: it is neither.
    """
    host, _, port = listen.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ValueError("write an address and a port, such as 127.0.0.1:20416")
    return host.removeprefix("[").removesuffix("]"), int(port)

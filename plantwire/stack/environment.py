"""Who is told what: environments of the stack's processes without what they must not know.

In: this process's environment. Out: environments of others. Guarantees: a secret reaches a process only when
it is granted to it by name; servers of others (Kafka, Redis, PostgreSQL, MQTT, Flink) get none.
Not here: which process needs which (assembly.py), where secrets come from (secret.py).
"""

from __future__ import annotations

import os
from collections.abc import Mapping

SECRET_VARIABLES = frozenset(
    {
        "PLANTWIRE_TOKEN_SECRET",
        "PLANTWIRE_TOKEN",
        "PLANTWIRE_MQTT_PASSWORD",
        "PLANTWIRE_INFLUX_TOKEN",
        "PLANTWIRE_INFLUX_PASSWORD",
        # Addresses: they may carry a user and a password.
        "PLANTWIRE_DATABASE",
        "PLANTWIRE_REDIS",
        "PLANTWIRE_MQTT",
        "PLANTWIRE_FLINK",
    }
)


def without_secrets() -> dict[str, str]:
    """This process's environment without the secrets in it."""
    # Settings are found whatever the case of their variable.
    return {name: value for name, value in os.environ.items() if name.upper() not in SECRET_VARIABLES}


def secrets_here() -> dict[str, str]:
    """The secrets in this process's environment."""
    return {name.upper(): value for name, value in os.environ.items() if name.upper() in SECRET_VARIABLES}


def grant(variables: Mapping[str, str], *secrets: str) -> dict[str, str]:
    """`variables` without the secret ones, but for those that are named."""
    return {
        name: value for name, value in variables.items() if name not in SECRET_VARIABLES or name in secrets
    }

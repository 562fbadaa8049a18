"""A job for the tests: counts records per key in keyed state, in Python in thread mode, without end."""

from __future__ import annotations

from pyflink.common import Types, WatermarkStrategy
from pyflink.datastream import KeyedProcessFunction, RuntimeContext, StreamExecutionEnvironment
from pyflink.datastream.connectors.number_seq import NumberSequenceSource
from pyflink.datastream.state import ValueStateDescriptor

import plantwire  # noqa: F401 - proves that the interpreter in the TaskManager finds the package


class Count(KeyedProcessFunction):
    """Adds one per record."""

    def open(self, runtime_context: RuntimeContext) -> None:
        self._count = runtime_context.get_state(ValueStateDescriptor("count", Types.LONG()))

    def process_element(self, value: int, ctx: KeyedProcessFunction.Context):  # type: ignore[no-untyped-def]
        self._count.update((self._count.value() or 0) + 1)
        yield value


env = StreamExecutionEnvironment.get_execution_environment()
numbers = env.from_source(
    NumberSequenceSource(0, 2**62), WatermarkStrategy.no_watermarks(), "numbers", Types.LONG()
)
numbers.key_by(lambda number: number % 10, Types.LONG()).process(Count(), Types.LONG()).uid("count").name(
    "count"
)
env.execute("counting")

package plantwire;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import org.apache.flink.api.common.serialization.DeserializationSchema;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.metrics.Counter;
import org.apache.flink.table.data.GenericArrayData;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.util.Collector;

/**
 * Reads the plain Avro body of a TelemetryFrame (plantwire/schemas/avro/TelemetryFrame.avsc) into a row of
 * {@link FrameFormat}.
 *
 * <p>It reads the fields of the first schema in their order; what later schemas put after them is left alone.
 * Bytes that are no frame are skipped and counted ({@code frames_rejected}).
 */
final class FrameReader implements DeserializationSchema<RowData> {

    private static final long serialVersionUID = 1L;

    /** The end of the year 9999: later times have no time stamp in SQL. */
    private static final long LAST_MS = 253_402_300_799_999L;

    private final TypeInformation<RowData> produced;
    private final int[] fields;
    private transient Counter rejected;

    /** {@code fields} are the places of the wanted columns in {@link FrameFormat#ROW}. */
    FrameReader(TypeInformation<RowData> produced, int[] fields) {
        this.produced = produced;
        this.fields = fields;
    }

    @Override
    public void open(InitializationContext context) {
        rejected = context.getMetricGroup().addGroup("plantwire").counter("frames_rejected");
    }

    @Override
    public void deserialize(byte[] body, Collector<RowData> out) {
        RowData row = deserialize(body);
        if (row == null) {
            rejected.inc();
        } else {
            out.collect(row);
        }
    }

    @Override
    public RowData deserialize(byte[] body) {
        if (body == null) {
            return null;
        }
        try {
            GenericRowData frame = new Cursor(body).frame();
            GenericRowData row = new GenericRowData(fields.length);
            for (int column = 0; column < fields.length; column++) {
                row.setField(column, frame.getField(fields[column]));
            }
            return row;
        } catch (IOException | IndexOutOfBoundsException error) {
            return null;
        }
    }

    @Override
    public boolean isEndOfStream(RowData next) {
        return false;
    }

    @Override
    public TypeInformation<RowData> getProducedType() {
        return produced;
    }

    /** A place in a body; every method reads one value and moves on. */
    private static final class Cursor {

        private final byte[] body;
        private int at;

        Cursor(byte[] body) {
            this.body = body;
        }

        GenericRowData frame() throws IOException {
            StringData deviceId = string();
            StringData site = string();
            if (present()) {
                number(); // sequence
            }
            long eventTimeMs = timeMs();
            long receivedTimeMs = timeMs();
            string(); // protocol
            boolean historical = flag();
            GenericArrayData metrics = metrics();
            number(); // gateway_in_us
            long gatewayOutUs = number();
            if (gatewayOutUs < 0 || gatewayOutUs / 1000 > LAST_MS) {
                throw new IOException("gateway_out_us");
            }
            return GenericRowData.of(
                    deviceId, site, eventTimeMs, receivedTimeMs, historical, metrics, gatewayOutUs);
        }

        private GenericArrayData metrics() throws IOException {
            List<RowData> metrics = new ArrayList<>();
            for (long block = number(); block != 0; block = number()) {
                if (block < 0) { // then its size in bytes follows
                    number();
                    block = -block;
                }
                // A metric has five bytes at the least: a count that lies must not take memory.
                if (block < 0 || block > (body.length - at) / 5) {
                    throw new IOException("metrics");
                }
                for (; block > 0; block--) {
                    metrics.add(metric());
                }
            }
            return new GenericArrayData(metrics.toArray());
        }

        private RowData metric() throws IOException {
            StringData name = string();
            Double number = present() ? (Double) real() : null;
            if (present()) {
                string(); // text
            }
            long quality = number();
            Long eventTimeMs = present() ? (Long) timeMs() : null;
            return GenericRowData.of(name, number, (int) quality, eventTimeMs);
        }

        private StringData string() throws IOException {
            long length = number();
            if (length < 0 || length > body.length - at) {
                throw new IOException("string");
            }
            StringData string = StringData.fromBytes(body, at, (int) length);
            at += (int) length;
            return string;
        }

        private boolean present() throws IOException {
            return flagOf(number());
        }

        private boolean flag() throws IOException {
            return flagOf(body[at++]);
        }

        private static boolean flagOf(long value) throws IOException {
            if (value != 0 && value != 1) {
                throw new IOException("flag");
            }
            return value == 1;
        }

        private long timeMs() throws IOException {
            long timeMs = number();
            if (timeMs < 0 || timeMs > LAST_MS) {
                throw new IOException("time");
            }
            return timeMs;
        }

        /** A double: eight bytes, low ones first. */
        private double real() {
            long bits = 0;
            for (int index = 7; index >= 0; index--) {
                bits = bits << 8 | body[at + index] & 0xff;
            }
            at += 8;
            return Double.longBitsToDouble(bits);
        }

        /** An int or a long: zigzag, seven bits per byte, low ones first. */
        private long number() throws IOException {
            long zigzag = 0;
            for (int shift = 0; shift < 64; shift += 7) {
                byte next = body[at++];
                zigzag |= (long) (next & 0x7f) << shift;
                if (next >= 0) {
                    return zigzag >>> 1 ^ -(zigzag & 1);
                }
            }
            throw new IOException("number");
        }
    }
}

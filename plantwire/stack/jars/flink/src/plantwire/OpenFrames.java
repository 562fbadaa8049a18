package plantwire;

import java.util.List;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.metrics.Counter;
import org.apache.flink.metrics.MetricGroup;
import org.apache.flink.runtime.state.FunctionInitializationContext;
import org.apache.flink.runtime.state.FunctionSnapshotContext;
import org.apache.flink.streaming.api.checkpoint.CheckpointedFunction;
import org.apache.flink.streaming.api.functions.ProcessFunction;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.data.ArrayData;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.TimestampData;
import org.apache.flink.table.types.DataType;
import org.apache.flink.util.Collector;

/**
 * Frames to samples: those that windows are made of go on, every other is counted with its reason
 * ({@code samples_<reason>}).
 *
 * <p>What is late is said of the second that a sample belongs to, by the watermark that its window will go by.
 * That is the one of before while the job comes back: windows keep theirs, so it is kept here too.
 */
public final class OpenFrames extends ProcessFunction<RowData, RowData> implements CheckpointedFunction {

    private static final long serialVersionUID = 1L;

    /** What it gives; {@code measured} is a sample's own time. */
    public static final DataType ROW =
            DataTypes.ROW(
                    DataTypes.FIELD("device_id", DataTypes.STRING()),
                    DataTypes.FIELD("metric", DataTypes.STRING()),
                    DataTypes.FIELD("number", DataTypes.DOUBLE()),
                    DataTypes.FIELD("measured", DataTypes.TIMESTAMP_LTZ(3)));

    private static final long SECOND_MS = 1_000;

    private final int keyAt;
    private final int deviceAt;
    private final int timeAt;
    private final int historicalAt;
    private final int metricsAt;
    private final int goodQuality;
    private final long maxAheadMs;

    private transient ListState<Long> kept;
    private transient long keptMs;
    private transient long watermarkMs;

    private transient Counter live;
    private transient Counter ofAnotherDevice;
    private transient Counter withoutNumber;
    private transient Counter historical;
    private transient Counter notGood;
    private transient Counter ahead;
    private transient Counter late;
    private transient Counter notFinite;

    /**
     * {@code columns} are the names of a frame's columns, with those of {@link FrameFormat} and
     * {@code record_key}; {@code maxAheadMs} is how far ahead of this machine's clock a sample may be.
     */
    public OpenFrames(List<String> columns, int goodQuality, long maxAheadMs) {
        keyAt = columns.indexOf("record_key");
        deviceAt = columns.indexOf("device_id");
        timeAt = columns.indexOf("event_time_ms");
        historicalAt = columns.indexOf("historical");
        metricsAt = columns.indexOf("metrics");
        this.goodQuality = goodQuality;
        this.maxAheadMs = maxAheadMs;
    }

    @Override
    public void open(OpenContext context) {
        MetricGroup metrics = getRuntimeContext().getMetricGroup().addGroup("plantwire");
        live = metrics.counter("samples_live");
        ofAnotherDevice = metrics.counter("samples_of_another_device");
        withoutNumber = metrics.counter("samples_without_number");
        historical = metrics.counter("samples_historical");
        notGood = metrics.counter("samples_not_good");
        ahead = metrics.counter("samples_ahead");
        late = metrics.counter("samples_late");
        notFinite = metrics.counter("samples_not_finite");
    }

    @Override
    public void initializeState(FunctionInitializationContext context) throws Exception {
        // Of all of them, also where there were more of this function: the one that is furthest behind.
        kept =
                context.getOperatorStateStore()
                        .getUnionListState(new ListStateDescriptor<>("watermark", Types.LONG));
        keptMs = Long.MIN_VALUE;
        for (Long ms : kept.get()) {
            keptMs = keptMs == Long.MIN_VALUE ? ms : Math.min(keptMs, ms);
        }
        watermarkMs = keptMs;
    }

    @Override
    public void snapshotState(FunctionSnapshotContext context) throws Exception {
        kept.update(List.of(watermarkMs));
    }

    @Override
    public void processElement(RowData frame, Context context, Collector<RowData> out) {
        ArrayData metrics = frame.getArray(metricsAt);
        StringData device = frame.getString(deviceAt);
        if (frame.isNullAt(keyAt) || !device.equals(frame.getString(keyAt))) {
            ofAnotherDevice.inc(metrics.size());
            return;
        }
        boolean stored = frame.getBoolean(historicalAt);
        long frameMs = frame.getLong(timeAt);
        long lastMs = System.currentTimeMillis() + maxAheadMs;
        watermarkMs = Math.max(keptMs, context.timerService().currentWatermark());
        TimestampData frameTime = TimestampData.fromEpochMillis(frameMs);
        for (int index = 0; index < metrics.size(); index++) {
            RowData metric = metrics.getRow(index, 4);
            boolean own = !metric.isNullAt(3);
            long timeMs = own ? metric.getLong(3) : frameMs;
            if (metric.isNullAt(1)) {
                withoutNumber.inc();
            } else if (stored) {
                historical.inc();
            } else if (metric.getInt(2) != goodQuality) {
                notGood.inc();
            } else if (timeMs > lastMs) {
                ahead.inc();
            } else if (timeMs - timeMs % SECOND_MS + SECOND_MS - 1 <= watermarkMs) {
                late.inc();
            } else if (Double.isFinite(metric.getDouble(1))) {
                live.inc();
                TimestampData measured = own ? TimestampData.fromEpochMillis(timeMs) : frameTime;
                out.collect(
                        GenericRowData.of(device, metric.getString(0), metric.getDouble(1), measured));
            } else {
                notFinite.inc();
            }
        }
    }
}

package plantwire;

import org.apache.flink.api.common.eventtime.TimestampAssigner;
import org.apache.flink.api.common.eventtime.TimestampAssignerSupplier;
import org.apache.flink.api.common.eventtime.Watermark;
import org.apache.flink.api.common.eventtime.WatermarkGenerator;
import org.apache.flink.api.common.eventtime.WatermarkGeneratorSupplier;
import org.apache.flink.api.common.eventtime.WatermarkOutput;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.table.data.RowData;

/**
 * Watermarks of rows that each tell a partition (INT) and how far the plant has come (TIMESTAMP_LTZ(3)):
 * {@code graceMs} behind {@link PlantProgress}.
 *
 * <p>Flink's own watermarks per partition take a partition for idle by the clock alone, from the start of the
 * task on. After the task was away, those whose backlog is not read first look idle then, and what waits in them
 * is late.
 */
public final class FrameWatermarks implements WatermarkStrategy<RowData> {

    private static final long serialVersionUID = 1L;

    private final int partitionAt;
    private final int progressAt;
    private final int partitionCount;
    private final long graceMs;
    private final long idleMs;
    private final long waitMs;
    private final long settleMs;
    private final long liveWithinMs;

    /** {@code partitionAt} and {@code progressAt} are places in the row; times are in ms. */
    public FrameWatermarks(
            int partitionAt,
            int progressAt,
            int partitionCount,
            long graceMs,
            long idleMs,
            long waitMs,
            long settleMs,
            long liveWithinMs) {
        this.partitionAt = partitionAt;
        this.progressAt = progressAt;
        this.partitionCount = partitionCount;
        this.graceMs = graceMs;
        this.idleMs = idleMs;
        this.waitMs = waitMs;
        this.settleMs = settleMs;
        this.liveWithinMs = liveWithinMs;
    }

    @Override
    public TimestampAssigner<RowData> createTimestampAssigner(TimestampAssignerSupplier.Context context) {
        return (row, before) -> row.getTimestamp(progressAt, 3).getMillisecond();
    }

    @Override
    public WatermarkGenerator<RowData> createWatermarkGenerator(WatermarkGeneratorSupplier.Context context) {
        return new Generator(
                new PlantProgress(partitionCount, idleMs, waitMs, settleMs, liveWithinMs));
    }

    private final class Generator implements WatermarkGenerator<RowData> {

        private final PlantProgress progress;

        Generator(PlantProgress progress) {
            this.progress = progress;
        }

        @Override
        public void onEvent(RowData row, long progressMs, WatermarkOutput output) {
            progress.read(row.getInt(partitionAt), progressMs, System.currentTimeMillis());
        }

        @Override
        public void onPeriodicEmit(WatermarkOutput output) {
            long reachedMs = progress.reached(System.currentTimeMillis());
            if (reachedMs != PlantProgress.UNKNOWN) {
                output.emitWatermark(new Watermark(reachedMs - graceMs));
            }
        }
    }
}

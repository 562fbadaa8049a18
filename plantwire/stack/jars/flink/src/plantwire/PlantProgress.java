package plantwire;

import java.util.HashMap;
import java.util.Map;

/**
 * How far a plant has come, from what its frames say, over the partitions that one task reads.
 *
 * <p>It has come as far as the partition that is furthest behind, of those that are waited for. Pure: times are
 * arguments, in ms.
 *
 * <ul>
 *   <li>A partition without frames for {@code idleMs} is not waited for.
 *   <li>One whose last frame was more than {@code liveWithinMs} old when it was read has a backlog: what seems
 *       to be silence may be its turn that has not come. It is waited for up to {@code waitMs}.
 *   <li>Until every partition has been read once nothing is told: which one is read first is chance, and the
 *       others may have a backlog. One without frames is waited for {@code settleMs} from the first frame on,
 *       or {@code waitMs} where one that was read has a backlog.
 *   <li>Where no partition is waited for, the plant is silent and its time goes on with the clock.
 * </ul>
 *
 * <p>Silence is counted in steps of {@value #STEP_MS} ms at the most: where the process itself stood still, what
 * came meanwhile is yet to be read.
 */
public final class PlantProgress {

    /** Told while nothing is known. */
    public static final long UNKNOWN = Long.MIN_VALUE;

    private static final long STEP_MS = 100;

    private final int partitionCount;
    private final long idleMs;
    private final long waitMs;
    private final long settleMs;
    private final long liveWithinMs;

    private final Map<Integer, Partition> partitions = new HashMap<>();
    private long countedAtMs = UNKNOWN;
    private long sinceFirstMs;
    private long newestMs = UNKNOWN;
    private long sinceNewestMs;
    private long toldMs = UNKNOWN;
    private boolean settled;

    /** {@code partitionCount} is how many there are to be read. */
    public PlantProgress(int partitionCount, long idleMs, long waitMs, long settleMs, long liveWithinMs) {
        this.partitionCount = partitionCount;
        this.idleMs = idleMs;
        this.waitMs = waitMs;
        this.settleMs = settleMs;
        this.liveWithinMs = liveWithinMs;
    }

    /** A frame was read at {@code nowMs} that says that the plant has come to {@code progressMs}. */
    public void read(int partitionNumber, long progressMs, long nowMs) {
        Partition partition = partitions.computeIfAbsent(partitionNumber, number -> new Partition());
        // The step that is under way will be counted whole.
        long beforeMs = stepTo(nowMs);
        partition.silentMs = -beforeMs;
        if (progressMs > partition.reachedMs) {
            partition.reachedMs = progressMs;
        }
        partition.behind = nowMs - partition.reachedMs > liveWithinMs;
        if (progressMs > newestMs) {
            newestMs = progressMs;
            sinceNewestMs = -beforeMs;
        }
    }

    /** How far the plant has come; asked again and again, it never goes back. {@link #UNKNOWN} at first. */
    public long reached(long nowMs) {
        long passedMs = stepTo(nowMs);
        countedAtMs = nowMs;
        if (partitions.isEmpty()) {
            return UNKNOWN;
        }
        sinceFirstMs += passedMs;
        sinceNewestMs += passedMs;
        boolean silent = true;
        boolean backlog = false;
        long reachedMs = Long.MAX_VALUE;
        for (Partition partition : partitions.values()) {
            partition.silentMs += passedMs;
            backlog |= partition.behind;
            if (partition.silentMs < (partition.behind ? waitMs : idleMs)) {
                silent = false;
                reachedMs = Math.min(reachedMs, partition.reachedMs);
            }
        }
        settled |= partitions.size() >= partitionCount || sinceFirstMs >= (backlog ? waitMs : settleMs);
        if (!settled) {
            return UNKNOWN;
        }
        toldMs = Math.max(toldMs, silent ? newestMs + sinceNewestMs - idleMs : reachedMs);
        return toldMs;
    }

    private long stepTo(long nowMs) {
        return countedAtMs == UNKNOWN ? 0 : Math.max(0, Math.min(nowMs - countedAtMs, STEP_MS));
    }

    private static final class Partition {

        private long reachedMs = UNKNOWN;
        private long silentMs;
        private boolean behind;
    }
}

package plantwire;

import java.util.HashMap;
import java.util.Map;
import org.apache.flink.metrics.Counter;
import org.apache.flink.metrics.MetricGroup;
import org.apache.flink.table.functions.FunctionContext;
import org.apache.flink.table.functions.ScalarFunction;

/**
 * The SQL function {@code counted(verdict)}: passes the verdict on and counts it ({@code samples_<verdict>}).
 *
 * <p>SQL leaves out what a condition is not true for and says nothing about it; this way every sample that is
 * left out has a counter with the reason. Verdicts are literals of the query, so there are few counters.
 */
public final class Counted extends ScalarFunction {

    private static final long serialVersionUID = 1L;

    private transient MetricGroup metrics;
    private transient Map<String, Counter> counters;

    @Override
    public void open(FunctionContext context) {
        metrics = context.getMetricGroup().addGroup("plantwire");
        counters = new HashMap<>();
    }

    public String eval(String verdict) {
        counters.computeIfAbsent(verdict, name -> metrics.counter("samples_" + name)).inc();
        return verdict;
    }

    /** Evaluated once per sample, neither folded nor shared nor moved. */
    @Override
    public boolean isDeterministic() {
        return false;
    }
}

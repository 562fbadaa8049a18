package plantwire;

import com.hivemq.configuration.service.InternalConfigurations;
import com.hivemq.embedded.EmbeddedHiveMQ;
import com.hivemq.migration.meta.PersistenceType;
import java.nio.file.Path;
import java.util.concurrent.ExecutionException;

/**
 * HiveMQ Community Edition as the process {@code java plantwire.MqttBroker HOME}.
 *
 * <p>In: HOME/conf with config.xml and logback.xml. Out: a broker until SIGTERM, its sessions in HOME/data.
 * Guarantees: a start that fails ends the process with exit code 1 and the reason. Embedded, HiveMQ lets
 * clients in without a password and sends no usage statistics.
 */
public final class MqttBroker {

    /** HiveMQ's size is made for a cluster's node; ours serves one plant and has to start fast. */
    private static final int BUCKETS = 4;

    /** Acknowledged messages are on disk already; what is still coming in at the end is not acknowledged. */
    private static final int SHUTDOWN_GRACE_MS = 200;

    private MqttBroker() {}

    public static void main(String[] arguments) throws InterruptedException {
        Path home = Path.of(arguments[0]).toAbsolutePath();
        InternalConfigurations.PERSISTENCE_BUCKET_COUNT.set(BUCKETS);
        InternalConfigurations.PAYLOAD_PERSISTENCE_BUCKET_COUNT.set(BUCKETS);
        // RocksDB, the default, takes a share of the machine's memory.
        InternalConfigurations.PAYLOAD_PERSISTENCE_TYPE.set(PersistenceType.FILE);
        InternalConfigurations.RETAINED_MESSAGE_PERSISTENCE_TYPE.set(PersistenceType.FILE);
        InternalConfigurations.PERSISTENCE_SHUTDOWN_GRACE_PERIOD_MSEC.set(SHUTDOWN_GRACE_MS);
        InternalConfigurations.JMX_REPORTER_ENABLED.set(false);
        EmbeddedHiveMQ broker = EmbeddedHiveMQ.builder()
                .withConfigurationFolder(home.resolve("conf"))
                .withDataFolder(home.resolve("data"))
                .withExtensionsFolder(home.resolve("extensions"))
                .build();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> close(broker)));
        try {
            broker.start().get();
        } catch (ExecutionException failure) {
            System.err.println("HiveMQ does not start: " + failure.getCause());
            System.exit(1);
        }
    }

    private static void close(EmbeddedHiveMQ broker) {
        try {
            broker.close();
        } catch (Exception failure) {
            System.err.println("HiveMQ does not close: " + failure);
        }
    }
}

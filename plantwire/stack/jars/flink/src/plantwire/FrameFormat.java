package plantwire;

import java.util.List;
import java.util.Set;
import org.apache.flink.api.common.serialization.DeserializationSchema;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.configuration.ConfigOption;
import org.apache.flink.configuration.ReadableConfig;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.api.ValidationException;
import org.apache.flink.table.connector.ChangelogMode;
import org.apache.flink.table.connector.format.DecodingFormat;
import org.apache.flink.table.connector.source.DynamicTableSource;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.factories.DeserializationFormatFactory;
import org.apache.flink.table.factories.DynamicTableFactory;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.logical.LogicalType;

/**
 * The SQL format {@code plantwire-frame}: TelemetryFrame bodies as rows, without failing on what is none.
 *
 * <p>Flink's own {@code avro} format reads the same bytes, but has no way to go on after bytes that it cannot
 * read: a single one would stop the job for ever.
 */
public final class FrameFormat implements DeserializationFormatFactory {

    static final DataType ROW =
            DataTypes.ROW(
                    DataTypes.FIELD("device_id", DataTypes.STRING()),
                    DataTypes.FIELD("event_time_ms", DataTypes.BIGINT()),
                    DataTypes.FIELD("received_time_ms", DataTypes.BIGINT()),
                    DataTypes.FIELD("historical", DataTypes.BOOLEAN()),
                    DataTypes.FIELD(
                            "metrics",
                            DataTypes.ARRAY(
                                    DataTypes.ROW(
                                            DataTypes.FIELD("name", DataTypes.STRING()),
                                            DataTypes.FIELD("number", DataTypes.DOUBLE()),
                                            DataTypes.FIELD("quality", DataTypes.INT()),
                                            DataTypes.FIELD("event_time_ms", DataTypes.BIGINT())))),
                    DataTypes.FIELD("gateway_out_us", DataTypes.BIGINT()));

    @Override
    public String factoryIdentifier() {
        return "plantwire-frame";
    }

    @Override
    public Set<ConfigOption<?>> requiredOptions() {
        return Set.of();
    }

    @Override
    public Set<ConfigOption<?>> optionalOptions() {
        return Set.of();
    }

    @Override
    public DecodingFormat<DeserializationSchema<RowData>> createDecodingFormat(
            DynamicTableFactory.Context context, ReadableConfig options) {
        return new DecodingFormat<>() {
            @Override
            public DeserializationSchema<RowData> createRuntimeDecoder(
                    DynamicTableSource.Context runtime, DataType declared) {
                List<LogicalType> wanted = ROW.getLogicalType().getChildren();
                if (!declared.getLogicalType().getChildren().equals(wanted)) {
                    throw new ValidationException(
                            "plantwire-frame has the columns " + ROW + ", not " + declared);
                }
                TypeInformation<RowData> produced = runtime.createTypeInformation(declared);
                return new FrameReader(produced);
            }

            @Override
            public ChangelogMode getChangelogMode() {
                return ChangelogMode.insertOnly();
            }
        };
    }
}

package plantwire;

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
import org.apache.flink.table.types.logical.RowType;

/**
 * The SQL format {@code plantwire-frame}: TelemetryFrame bodies as rows, without failing on what is none.
 *
 * <p>A table takes those of its columns that it needs, in any order.
 *
 * <p>Flink's own {@code avro} format reads the same bytes, but has no way to go on after bytes that it cannot
 * read: a single one would stop the job for ever.
 */
public final class FrameFormat implements DeserializationFormatFactory {

    static final DataType ROW =
            DataTypes.ROW(
                    DataTypes.FIELD("device_id", DataTypes.STRING()),
                    DataTypes.FIELD("site", DataTypes.STRING()),
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
                RowType known = (RowType) ROW.getLogicalType();
                RowType wanted = (RowType) declared.getLogicalType();
                int[] fields = new int[wanted.getFieldCount()];
                for (int column = 0; column < fields.length; column++) {
                    fields[column] = known.getFieldIndex(wanted.getFieldNames().get(column));
                    if (fields[column] < 0
                            || !known.getTypeAt(fields[column]).equals(wanted.getTypeAt(column))) {
                        throw new ValidationException(
                                "plantwire-frame has the columns " + ROW + ", not " + declared);
                    }
                }
                TypeInformation<RowData> produced = runtime.createTypeInformation(declared);
                return new FrameReader(produced, fields);
            }

            @Override
            public ChangelogMode getChangelogMode() {
                return ChangelogMode.insertOnly();
            }
        };
    }
}

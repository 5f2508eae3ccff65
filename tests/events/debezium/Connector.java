import com.fasterxml.jackson.databind.ObjectMapper;
import io.debezium.embedded.Connect;
import io.debezium.engine.DebeziumEngine;
import io.debezium.engine.RecordChangeEvent;
import io.debezium.engine.format.ChangeEventFormat;
import java.io.FileOutputStream;
import java.io.FileDescriptor;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.stream.Collectors;
import org.apache.kafka.connect.header.Header;
import org.apache.kafka.connect.source.SourceRecord;
import org.apache.kafka.connect.storage.Converter;
import org.apache.kafka.connect.storage.HeaderConverter;
import org.apache.kafka.connect.storage.SimpleHeaderConverter;

/**
 * Runs one connector as Kafka Connect would, and prints each record as the broker would get it: a
 * line of JSON with topic, key, value and headers, bytes in base64. Ends when its input does.
 */
public class Connector {
    private static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] arguments) throws Exception {
        PrintStream records = new PrintStream(new FileOutputStream(FileDescriptor.out), true);
        System.setOut(System.err);
        Properties settings = new Properties();
        try (var file = Files.newBufferedReader(Path.of(arguments[0]), StandardCharsets.UTF_8)) {
            settings.load(file);
        }
        Converter keys = converter(settings, "key.converter", true);
        Converter values = converter(settings, "value.converter", false);
        HeaderConverter headers = new SimpleHeaderConverter();
        DebeziumEngine<RecordChangeEvent<SourceRecord>> engine =
                DebeziumEngine.create(ChangeEventFormat.of(Connect.class))
                        .using(settings)
                        .using((success, message, error) -> {
                            if (!success) {
                                System.err.println(message);
                                if (error != null) error.printStackTrace();
                                System.exit(1);
                            }
                        })
                        .notifying(event -> print(records, event.record(), keys, values, headers))
                        .build();
        Thread running = new Thread(engine);
        running.start();
        while (System.in.read() >= 0) {
            continue;
        }
        engine.close();
        running.join();
        System.exit(0);
    }

    private static void print(
            PrintStream records,
            SourceRecord record,
            Converter keys,
            Converter values,
            HeaderConverter headers) {
        String topic = record.topic();
        List<Object> sent = new ArrayList<>();
        for (Header header : record.headers()) {
            byte[] value =
                    headers.fromConnectHeader(topic, header.key(), header.schema(), header.value());
            sent.add(Arrays.asList(header.key(), value));
        }
        Map<String, Object> line = new LinkedHashMap<>();
        line.put("topic", topic);
        line.put("key", keys.fromConnectData(topic, record.keySchema(), record.key()));
        line.put("value", values.fromConnectData(topic, record.valueSchema(), record.value()));
        line.put("headers", sent);
        try {
            records.println(JSON.writeValueAsString(line));
        } catch (Exception error) {
            throw new IllegalStateException(error);
        }
    }

    /** A converter, with the settings that stand under its name. */
    private static Converter converter(Properties settings, String name, boolean key)
            throws Exception {
        String prefix = name + ".";
        Map<String, String> its = settings.stringPropertyNames().stream()
                .filter(each -> each.startsWith(prefix))
                .collect(Collectors.toMap(
                        each -> each.substring(prefix.length()), settings::getProperty));
        Converter converter = (Converter)
                Class.forName(settings.getProperty(name)).getDeclaredConstructor().newInstance();
        converter.configure(its, key);
        return converter;
    }
}

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * A foreign producer for the tests: what Kafka programs write and Millrace must read rightly.
 *
 * <p>Writes records in one transaction and ends it as told: {@code commit}, {@code abort}, or {@code hang}, which
 * dies in the middle, so that the partition's last stable offset stands still until the transaction times out.
 * {@code plain} uses no transaction. Run it with {@code scripts/kafka-tool.sh txn-producer}, which needs no compiling.
 *
 * <p>Record i has key "txn/KEY" (KEY = i modulo 10), value "OUTCOME i" and a tail that compresses well. Every record is
 * known to be in the log before the outcome; one line "partition offset" each is printed, then the outcome.
 */
public class TxnProducer {
    static final String USAGE =
            "usage: txn-producer BOOTSTRAP TOPIC commit|abort|hang|plain [none|gzip|snappy|lz4|zstd] [RECORDS]"
                    + " [headers|no-headers] [TIMEOUT_MS]";

    public static void main(String[] args) throws Exception {
        if (args.length < 3 || !List.of("commit", "abort", "hang", "plain").contains(args[2])) {
            System.err.println(USAGE);
            System.exit(2);
        }
        String topic = args[1];
        String outcome = args[2];
        String compression = argument(args, 3, "none");
        int records = Integer.parseInt(argument(args, 4, "10"));
        boolean headers = argument(args, 5, "headers").equals("headers");
        String timeoutMs = argument(args, 6, "60000");

        try (var producer = new KafkaProducer<byte[], byte[]>(settings(args[0], outcome, compression, timeoutMs))) {
            boolean transactional = !outcome.equals("plain");
            if (transactional) {
                producer.initTransactions();
                producer.beginTransaction();
            }
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int i = 0; i < records; i++) {
                sent.add(producer.send(record(topic, outcome, i, headers)));
            }
            producer.flush();
            for (var each : sent) {
                System.out.println(each.get().partition() + " " + each.get().offset());
            }
            switch (outcome) {
                case "commit" -> producer.commitTransaction();
                case "abort" -> producer.abortTransaction();
                default -> { }
            }
            System.out.println(outcome);
            System.out.flush();
            if (outcome.equals("hang")) {
                // close() would abort; only an end without it leaves the transaction open.
                System.exit(0);
            }
        }
    }

    static String argument(String[] args, int index, String otherwise) {
        return args.length > index ? args[index] : otherwise;
    }

    static Properties settings(String bootstrap, String outcome, String compression, String timeoutMs) {
        var settings = new Properties();
        settings.put(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        settings.put(ProducerConfig.KEY_SERIALIZER_CLASS_CONFIG, ByteArraySerializer.class.getName());
        settings.put(ProducerConfig.VALUE_SERIALIZER_CLASS_CONFIG, ByteArraySerializer.class.getName());
        settings.put(ProducerConfig.COMPRESSION_TYPE_CONFIG, compression);
        settings.put(ProducerConfig.LINGER_MS_CONFIG, "50");
        settings.put(ProducerConfig.ACKS_CONFIG, "all");
        if (!outcome.equals("plain")) {
            // A new id each time: a second run must not abort what the first one left hanging.
            settings.put(ProducerConfig.TRANSACTIONAL_ID_CONFIG, "txn-producer-" + ProcessHandle.current().pid() + "-"
                    + System.nanoTime());
            settings.put(ProducerConfig.TRANSACTION_TIMEOUT_CONFIG, timeoutMs);
        }
        return settings;
    }

    static ProducerRecord<byte[], byte[]> record(String topic, String outcome, int i, boolean headers) {
        var record = new ProducerRecord<>(
                topic, utf8("txn/" + i % 10), utf8(outcome + " " + i + " " + "compressible ".repeat(8)));
        if (headers) {
            // Kafka allows a name twice and a null value; so must every reader.
            record.headers().add("origin", utf8("java"));
            record.headers().add("origin", utf8("txn"));
            record.headers().add("nothing", null);
        }
        return record;
    }

    static byte[] utf8(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }
}

package live;

import com.github.kpavlov.jreactive8583.IsoMessageListener;
import com.github.kpavlov.jreactive8583.client.ClientConfiguration;
import com.github.kpavlov.jreactive8583.client.Iso8583Client;
import com.github.kpavlov.jreactive8583.netty.pipeline.EchoMessageListener;
import com.github.kpavlov.jreactive8583.server.Iso8583Server;
import com.github.kpavlov.jreactive8583.server.ServerConfiguration;
import com.solab.iso8583.IsoMessage;
import com.solab.iso8583.IsoType;
import com.solab.iso8583.MessageFactory;
import com.solab.iso8583.parse.FieldParseInfo;
import io.netty.channel.ChannelHandlerContext;
import java.io.UnsupportedEncodingException;
import java.math.BigDecimal;
import java.net.InetSocketAddress;
import java.text.ParseException;
import java.util.Date;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/**
 * A card host and its terminal on one connection: `live.Iso8583 server PORT DIALECT`, `live.Iso8583 client PORT DIALECT
 * SECONDS` (to stay after the last answer); a dialect is text, bitmap or packed.
 *
 * <p>The units of an amount are the milliseconds that the host takes, its cents the response code; 99: no answer. The
 * client prints `sent TYPE STAN` and `got TYPE STAN CODE` as it happens.
 */
public class Iso8583 {
    static final int[] TYPES = {
        0x100, 0x110, 0x140, 0x200, 0x210, 0x400, 0x410, 0x420, 0x430, 0x800, 0x810,
    };
    static final int TO_THE_CLIENT = 900001;
    /** How many requests come at once, and the longest that the host takes for one of them, ms. */
    static final int TOGETHER = 10, TOGETHER_MOST = 500;

    static boolean packed;

    static IsoType variable() {
        return packed ? IsoType.LLBCDBIN : IsoType.LLVAR;
    }

    /** The elements of this dialect; a length of 0 is variable. */
    static Map<Integer, FieldParseInfo> elements() {
        Map<Integer, FieldParseInfo> all = new HashMap<>();
        Object[][] rows = {
            {2, variable(), 0},
            {3, IsoType.NUMERIC, 6},
            {4, IsoType.AMOUNT, 12},
            {7, IsoType.DATE10, 10},
            {11, IsoType.NUMERIC, 6},
            {14, IsoType.NUMERIC, 4},
            {22, IsoType.NUMERIC, 3},
            {25, IsoType.NUMERIC, 2},
            {32, variable(), 0},
            {35, variable(), 0},
            {37, IsoType.ALPHA, 12},
            {38, IsoType.ALPHA, 6},
            {39, IsoType.ALPHA, 2},
            {41, IsoType.ALPHA, 8},
            {42, IsoType.ALPHA, 15},
            {45, IsoType.LLVAR, 0},
            {48, IsoType.LLLVAR, 0},
            {49, IsoType.ALPHA, 3},
            {52, IsoType.BINARY, 8},
            {70, IsoType.NUMERIC, 3},
            {90, IsoType.NUMERIC, 42},
        };
        for (Object[] row : rows) {
            all.put((Integer) row[0], FieldParseInfo.getInstance((IsoType) row[1], (Integer) row[2], "US-ASCII"));
        }
        return all;
    }

    static MessageFactory<IsoMessage> factory(String dialect) {
        packed = dialect.equals("packed");
        int header = packed ? 5 : dialect.equals("text") ? 12 : 0;
        // The decoder of the connector knows of no header, and no answer of its library has one of bytes.
        MessageFactory<IsoMessage> factory = new MessageFactory<>() {
            public IsoMessage parseMessage(byte[] bytes, int none)
                    throws ParseException, UnsupportedEncodingException {
                return parseMessage(bytes, header, packed);
            }

            public IsoMessage createResponse(IsoMessage request) {
                IsoMessage answer = super.createResponse(request);
                if (packed) {
                    answer.setBinaryIsoHeader(new byte[] {0x60, 0, 0, 0, 3});
                }
                return answer;
            }
        };
        factory.setCharacterEncoding("US-ASCII");
        factory.setUseBinaryMessages(packed);
        factory.setUseBinaryBitmap(dialect.equals("bitmap"));
        for (int type : TYPES) {
            factory.setParseMap(type, elements());
            if (packed) {
                factory.setBinaryIsoHeader(type, new byte[] {0x60, 0, 3, 0, 0});
            } else if (dialect.equals("text")) {
                factory.setIsoHeader(type, "ISO015000050");
            }
        }
        IsoMessage echoed = factory.newMessage(0x810);
        echoed.setValue(39, "00", IsoType.ALPHA, 2);
        factory.addMessageTemplate(echoed);
        return factory;
    }

    static IsoMessage management(MessageFactory<IsoMessage> factory, int stan, int code) {
        return factory.newMessage(0x800)
                .setValue(7, new Date(), IsoType.DATE10, 10)
                .setValue(11, stan, IsoType.NUMERIC, 6)
                .setValue(70, code, IsoType.NUMERIC, 3);
    }

    /** Listens to messages of some types. */
    abstract static class Listener implements IsoMessageListener<IsoMessage> {
        abstract boolean heard(ChannelHandlerContext context, IsoMessage message);

        public boolean applies(IsoMessage message) {
            return true;
        }

        public boolean onMessage(ChannelHandlerContext context, IsoMessage message) {
            return heard(context, message);
        }
    }

    static void serve(int port, MessageFactory<IsoMessage> factory) throws Exception {
        ServerConfiguration settings = ServerConfiguration.newBuilder().build();
        Iso8583Server<IsoMessage> server = new Iso8583Server<>(port, settings, factory);
        server.addMessageListener(new Listener() {
            /** What to say after so many milliseconds, of those that come many at a time; all wait from the last on. */
            final Map<Runnable, Long> together = new LinkedHashMap<>();

            boolean heard(ChannelHandlerContext context, IsoMessage message) {
                if (message.getType() == 0x800) {
                    if (number(message, 70) == 1) {
                        context.writeAndFlush(management(factory, TO_THE_CLIENT, 301));
                    }
                    return true;
                }
                if (!message.hasField(4)) {
                    return false;
                }
                BigDecimal amount = message.getObjectValue(4);
                String code = amount.toPlainString().substring(amount.toPlainString().indexOf('.') + 1);
                if (!code.equals("99")) {
                    IsoMessage answer = factory.createResponse(message);
                    answer.setValue(39, code, IsoType.ALPHA, 2);
                    if (code.equals("00")) {
                        answer.setValue(38, "A1B2C3", IsoType.ALPHA, 6);
                    }
                    Runnable tell = () -> context.writeAndFlush(answer);
                    together.put(tell, amount.longValue());
                    if (amount.longValue() == 0 || amount.longValue() > TOGETHER_MOST || together.size() == TOGETHER) {
                        together.forEach((it, delay) -> context.executor().schedule(it, delay, TimeUnit.MILLISECONDS));
                        together.clear();
                    }
                }
                return false;
            }
        });
        server.addMessageListener(new EchoMessageListener<>(factory));
        server.init();
        server.start();
        Thread.currentThread().join();
    }

    static int number(IsoMessage message, int element) {
        return Integer.parseInt(message.getObjectValue(element).toString());
    }

    static class Terminal {
        final MessageFactory<IsoMessage> factory;
        final Iso8583Client<IsoMessage> client;
        final BlockingQueue<IsoMessage> answers = new LinkedBlockingQueue<>();

        Terminal(int port, MessageFactory<IsoMessage> factory) throws Exception {
            this.factory = factory;
            InetSocketAddress host = new InetSocketAddress("127.0.0.1", port);
            client = new Iso8583Client<>(host, ClientConfiguration.newBuilder().build(), factory);
            client.addMessageListener(new Listener() {
                boolean heard(ChannelHandlerContext context, IsoMessage message) {
                    if (message.getType() != 0x800) {
                        answers.add(message);
                    }
                    return true;
                }
            });
            client.addMessageListener(new EchoMessageListener<>(factory));
            client.init();
            client.connect();
        }

        void send(IsoMessage message) throws Exception {
            System.out.printf("sent %04x %06d%n", message.getType(), message.hasField(11) ? number(message, 11) : 0);
            client.send(message);
        }

        void await(int count) throws Exception {
            for (int got = 0; got < count; got++) {
                IsoMessage answer = answers.poll(20, TimeUnit.SECONDS);
                if (answer == null) {
                    throw new IllegalStateException("no answer");
                }
                String code = answer.getObjectValue(39);
                System.out.printf("got %04x %06d %s%n", answer.getType(), number(answer, 11), code);
            }
        }

        void card(int type, int stan, String amount) throws Exception {
            String pan = "4111222233334444";
            IsoMessage message = factory.newMessage(type);
            if (packed) {
                message.setValue(2, pan, IsoType.LLBCDBIN, 0).setValue(32, "123456", IsoType.LLBCDBIN, 0);
                message.setValue(35, pan + "D25121015432154321", IsoType.LLBCDBIN, 0);
            } else {
                message.setValue(2, pan, IsoType.LLVAR, 0).setValue(32, "123456", IsoType.LLVAR, 0);
                message.setValue(35, pan + "=25121015432154321", IsoType.LLVAR, 0);
            }
            message.setValue(3, 1000, IsoType.NUMERIC, 6)
                    .setValue(4, new BigDecimal(amount), IsoType.AMOUNT, 12)
                    .setValue(7, new Date(), IsoType.DATE10, 10)
                    .setValue(11, stan, IsoType.NUMERIC, 6)
                    .setValue(14, 2512, IsoType.NUMERIC, 4)
                    .setValue(22, 901, IsoType.NUMERIC, 3)
                    .setValue(25, 0, IsoType.NUMERIC, 2)
                    .setValue(37, String.format("REF%09d", stan), IsoType.ALPHA, 12)
                    .setValue(41, "TERM0001", IsoType.ALPHA, 8)
                    .setValue(42, "SHOP00000000001", IsoType.ALPHA, 15)
                    .setValue(45, "B" + pan + "^CARDHOLDER/NAME^25121011", IsoType.LLVAR, 0)
                    .setValue(48, "PRIVATE-OF-THE-HOLDER", IsoType.LLLVAR, 0)
                    .setValue(49, "978", IsoType.ALPHA, 3)
                    .setValue(52, "PINBLOCK".getBytes("US-ASCII"), IsoType.BINARY, 8);
            if (type >> 8 == 4) {
                String original = String.format("0200%06d", stan - 1) + "1121152057" + "0".repeat(22);
                message.setValue(90, original, IsoType.NUMERIC, 42);
            }
            send(message);
        }

        void run(int seconds) throws Exception {
            send(management(factory, 1, 1));
            await(1);
            int stan = 2;
            for (int type : new int[] {0x100, 0x200, 0x400, 0x420}) {
                for (String amount : new String[] {"0.00", "0.05", "0.51", "0.91", "0.96"}) {
                    card(type, stan++, amount);
                    await(1);
                }
            }
            card(0x200, stan++, "600.00");
            await(1);
            // Many at a time, answered from the last to the first; the number is that of another class, too.
            for (int delay = TOGETHER_MOST; delay > 0; delay -= 100) {
                card(0x100, stan, delay + ".00");
                card(0x200, stan++, (delay - 50) + ".51");
            }
            await(TOGETHER);
            // A notification has no number and no answer.
            send(factory.newMessage(0x140)
                    .setValue(3, 1000, IsoType.NUMERIC, 6)
                    .setValue(7, new Date(), IsoType.DATE10, 10)
                    .setValue(41, "TERM0001", IsoType.ALPHA, 8));
            card(0x100, stan++, "0.99");
            send(management(factory, stan, 301));
            await(1);
            TimeUnit.SECONDS.sleep(seconds);
            client.disconnect();
            client.shutdown();
        }
    }

    public static void main(String[] words) throws Exception {
        int port = Integer.parseInt(words[1]);
        MessageFactory<IsoMessage> factory = factory(words[2]);
        if (words[0].equals("server")) {
            serve(port, factory);
        } else {
            new Terminal(port, factory).run(Integer.parseInt(words[3]));
            System.exit(0);
        }
    }
}

package live;

import java.io.Serializable;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.dubbo.config.ProtocolConfig;
import org.apache.dubbo.rpc.RpcException;
import org.apache.dubbo.rpc.StatusRpcException;

/** A provider and its consumer: `live.Triple server PORT`, `live.Triple client PORT`. */
public class Triple {
    public static class Receipt implements Serializable {
        public Thread printer = new Thread();
    }

    public interface Orders {
        String hello(String name);

        Map<String, Integer> amounts(List<String> names);

        String drop(String name);

        Object receipt(String name);
    }

    public static class Shop implements Orders {
        public String hello(String name) {
            return "hello " + name;
        }

        public Map<String, Integer> amounts(List<String> names) {
            return new HashMap<>(Map.of(names.get(0), 70000));
        }

        public String drop(String name) {
            IllegalStateException sold = new IllegalStateException("out of " + name);
            // Without its stack the trailers follow within what the agent captures of a write.
            sold.setStackTrace(new StackTraceElement[0]);
            throw sold;
        }

        public Object receipt(String name) {
            return new Receipt();
        }
    }

    /** Prints what the consumer was told: the method, the status of the call, what it ended with. */
    private static void say(String method, Runnable call) {
        int code = 0;
        String text = "";
        try {
            call.run();
        } catch (IllegalStateException thrown) {
            text = thrown.getMessage();
        } catch (RpcException failure) {
            Throwable cause = failure;
            while (!(cause instanceof StatusRpcException) && cause.getCause() != null) {
                cause = cause.getCause();
            }
            if (!(cause instanceof StatusRpcException)) {
                throw failure;
            }
            code = ((StatusRpcException) cause).getStatus().code.code;
            text = ((StatusRpcException) cause).getStatus().description;
        }
        System.out.println(method + "\t" + code + "\t" + text.lines().findFirst().orElse(""));
    }

    public static void main(String[] words) throws Exception {
        int port = Integer.parseInt(words[1]);
        if (words[0].equals("server")) {
            DubboEnds.provide(Orders.class, new Shop(), new ProtocolConfig("tri", port));
            return;
        }
        DubboEnds.dubbo().start();
        String provider = "tri://127.0.0.1:" + port;
        Orders orders = DubboEnds.refer(Orders.class, "1.0", provider + "/live.Triple$Orders");
        for (int i = 0; i < 10; i++) {
            DubboEnds.trace(i);
            say("hello", () -> orders.hello("world"));
        }
        say("amounts", () -> orders.amounts(new ArrayList<>(List.of("kettle"))));
        say("drop", () -> orders.drop("kettles"));
        Orders nowhere = DubboEnds.refer(Orders.class, "1.0", provider + "/live.Nowhere");
        say("hello", () -> nowhere.hello("nobody there"));
        say("receipt", () -> orders.receipt("kettle"));
        System.exit(0);
    }
}

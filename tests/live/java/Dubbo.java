package live;

import java.io.Serializable;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.dubbo.config.ProtocolConfig;
import org.apache.dubbo.rpc.RpcContext;
import org.apache.dubbo.rpc.RpcException;

/** A provider and its consumer: `live.Dubbo server PORT`, `live.Dubbo client PORT SERIALISATION`. */
public class Dubbo {
    public static class Order implements Serializable {
        public String name = "kettle";
        public double price = 12.5;
        public long created = 1700000000000L;
        public List<Integer> amounts = new ArrayList<>(List.of(1, 300, 70000));
        public Map<String, Object> more = new HashMap<>(Map.of("gift", true));
    }

    public interface Orders {
        String hello(String name);

        Order place(Order order, int count, String[] words);

        void note(String text);
    }

    public static class Shop implements Orders {
        public String hello(String name) {
            return "hello " + name;
        }

        public Order place(Order order, int count, String[] words) {
            return order;
        }

        public void note(String text) {}
    }

    public static void main(String[] words) throws Exception {
        int port = Integer.parseInt(words[1]);
        if (words[0].equals("server")) {
            ProtocolConfig protocol = new ProtocolConfig("dubbo", port);
            protocol.setPreferSerialization("hessian2,fastjson2");
            DubboEnds.provide(Orders.class, new Shop(), protocol);
            return;
        }
        DubboEnds.dubbo().start();
        String url = "dubbo://127.0.0.1:" + port + "/live.Dubbo$Orders?serialization=" + words[2]
            + "&prefer.serialization=" + words[2];
        Orders orders = DubboEnds.refer(Orders.class, "1.0", url, "note");
        for (int i = 0; i < 10; i++) {
            DubboEnds.trace(i);
            orders.hello("world");
        }
        RpcContext.getClientAttachment().setAttachment("sw8",
            "1-VFJBQ0VJRA==-U0VHTUVOVElE-3-c2VydmljZQ==-aW5zdGFuY2U=-ZW5kcG9pbnQ=-cGVlcg==");
        orders.place(new Order(), 3, new String[] {"a", "b"});
        orders.note("nobody answers this");
        try {
            DubboEnds.refer(Orders.class, "2.0", url).hello("nobody there");
        } catch (RpcException refused) {
            System.err.println(refused.getMessage());
        }
        System.exit(0);
    }
}

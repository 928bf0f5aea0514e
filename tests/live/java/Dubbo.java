package live;

import java.io.Serializable;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.dubbo.config.ApplicationConfig;
import org.apache.dubbo.config.MethodConfig;
import org.apache.dubbo.config.ProtocolConfig;
import org.apache.dubbo.config.ReferenceConfig;
import org.apache.dubbo.config.RegistryConfig;
import org.apache.dubbo.config.ServiceConfig;
import org.apache.dubbo.config.bootstrap.DubboBootstrap;
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
        ApplicationConfig application = new ApplicationConfig("live");
        application.setQosEnable(false);
        application.setMetadataType("local");
        int port = Integer.parseInt(words[1]);
        if (words[0].equals("server")) {
            ServiceConfig<Orders> service = new ServiceConfig<>();
            service.setInterface(Orders.class);
            service.setRef(new Shop());
            service.setVersion("1.0");
            ProtocolConfig protocol = new ProtocolConfig("dubbo", port);
            protocol.setHost("127.0.0.1");
            protocol.setPreferSerialization("hessian2,fastjson2");
            DubboBootstrap.getInstance().application(application).registry(new RegistryConfig("N/A"))
                .protocol(protocol).service(service).start().await();
            return;
        }
        ReferenceConfig<Orders> reference = new ReferenceConfig<>();
        reference.setInterface(Orders.class);
        reference.setVersion("1.0");
        reference.setTimeout(5000);
        reference.setRetries(0);
        reference.setCheck(false);
        MethodConfig note = new MethodConfig();
        note.setName("note");
        note.setReturn(false);
        reference.setMethods(List.of(note));
        reference.setUrl("dubbo://127.0.0.1:" + port + "/live.Dubbo$Orders?serialization=" + words[2]
            + "&prefer.serialization=" + words[2]);
        DubboBootstrap.getInstance().application(application).registry(new RegistryConfig("N/A"))
            .reference(reference).start();
        Orders orders = reference.get();
        for (int i = 0; i < 10; i++) {
            RpcContext.getClientAttachment().setAttachment("traceparent",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333" + i + "-01");
            orders.hello("world");
        }
        RpcContext.getClientAttachment().setAttachment("sw8",
            "1-VFJBQ0VJRA==-U0VHTUVOVElE-3-c2VydmljZQ==-aW5zdGFuY2U=-ZW5kcG9pbnQ=-cGVlcg==");
        orders.place(new Order(), 3, new String[] {"a", "b"});
        orders.note("nobody answers this");
        ReferenceConfig<Orders> missing = new ReferenceConfig<>();
        missing.setInterface(Orders.class);
        missing.setVersion("2.0");
        missing.setRetries(0);
        missing.setCheck(false);
        missing.setUrl("dubbo://127.0.0.1:" + port + "/live.Dubbo$Orders?serialization=" + words[2]
            + "&prefer.serialization=" + words[2]);
        try {
            missing.get().hello("nobody there");
        } catch (RpcException refused) {
            System.err.println(refused.getMessage());
        }
        System.out.println("{\"done\": true}");
        System.exit(0);
    }
}

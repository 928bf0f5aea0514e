package live;

import com.alipay.sofa.rpc.config.ApplicationConfig;
import com.alipay.sofa.rpc.config.ConsumerConfig;
import com.alipay.sofa.rpc.config.MethodConfig;
import com.alipay.sofa.rpc.config.ProviderConfig;
import com.alipay.sofa.rpc.config.ServerConfig;
import java.util.List;

/** A provider and its consumer over Bolt: `live.Sofa server PORT`, `live.Sofa client PORT`. */
public class Sofa {
    public interface Orders {
        String hello(String name);

        void note(String text);
    }

    public static class Shop implements Orders {
        public String hello(String name) {
            if (name.isEmpty()) {
                throw new IllegalArgumentException("nobody");
            }
            return "hello " + name;
        }

        public void note(String text) {}
    }

    public static void main(String[] words) throws Exception {
        int port = Integer.parseInt(words[1]);
        ApplicationConfig application = new ApplicationConfig().setAppName("live");
        if (words[0].equals("server")) {
            ServerConfig server = new ServerConfig().setProtocol("bolt").setHost("127.0.0.1").setPort(port).setDaemon(false);
            new ProviderConfig<Orders>().setApplication(application).setInterfaceId(Orders.class.getName())
                .setRef(new Shop()).setServer(server).setRegister(false).export();
            return;
        }
        MethodConfig note = new MethodConfig().setName("note").setInvokeType("oneway");
        ConsumerConfig<Orders> wish = new ConsumerConfig<Orders>().setApplication(application)
            .setInterfaceId(Orders.class.getName()).setProtocol("bolt").setDirectUrl("bolt://127.0.0.1:" + port)
            .setMethods(List.of(note)).setTimeout(30000).setRegister(false).setSubscribe(false);
        Orders orders = wish.refer();
        for (int i = 0; i < 10; i++) {
            orders.hello("world");
        }
        orders.note("nobody answers this");
        try {
            orders.hello("");
        } catch (IllegalArgumentException refused) {
            System.err.println(refused.getMessage());
        }
        Orders missing = new ConsumerConfig<Orders>().setApplication(application)
            .setInterfaceId(Orders.class.getName()).setUniqueId("missing").setProtocol("bolt")
            .setDirectUrl("bolt://127.0.0.1:" + port).setTimeout(30000).setRegister(false).setSubscribe(false).refer();
        try {
            missing.hello("nobody there");
        } catch (Exception refused) {
            System.err.println(refused.getMessage());
        }
        System.out.println("{\"done\": true}");
        System.exit(0);
    }
}

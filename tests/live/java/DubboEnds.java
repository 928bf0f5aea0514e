package live;

import java.util.List;
import org.apache.dubbo.config.ApplicationConfig;
import org.apache.dubbo.config.MethodConfig;
import org.apache.dubbo.config.ProtocolConfig;
import org.apache.dubbo.config.ReferenceConfig;
import org.apache.dubbo.config.RegistryConfig;
import org.apache.dubbo.config.ServiceConfig;
import org.apache.dubbo.config.bootstrap.DubboBootstrap;
import org.apache.dubbo.rpc.RpcContext;

/** Provider and consumer of one service, without a registry. */
class DubboEnds {
    static DubboBootstrap dubbo() {
        ApplicationConfig application = new ApplicationConfig("live");
        application.setQosEnable(false);
        application.setMetadataType("local");
        return DubboBootstrap.getInstance().application(application).registry(new RegistryConfig("N/A"));
    }

    /** Serves for ever. */
    static <T> void provide(Class<T> type, T shop, ProtocolConfig protocol) {
        ServiceConfig<T> service = new ServiceConfig<>();
        service.setInterface(type);
        service.setRef(shop);
        service.setVersion("1.0");
        protocol.setHost("127.0.0.1");
        dubbo().protocol(protocol).service(service).start().await();
    }

    /** What the provider at `url` serves as `version`; nobody answers calls of the methods `told`. */
    static <T> T refer(Class<T> type, String version, String url, String... told) {
        ReferenceConfig<T> reference = new ReferenceConfig<>();
        reference.setInterface(type);
        reference.setVersion(version);
        reference.setTimeout(30000);
        reference.setRetries(0);
        reference.setCheck(false);
        reference.setUrl(url);
        reference.setMethods(List.of(told).stream().map(DubboEnds::method).toList());
        return reference.get();
    }

    private static MethodConfig method(String name) {
        MethodConfig method = new MethodConfig();
        method.setName(name);
        method.setReturn(false);
        return method;
    }

    /** The next call is the one of this number in the caller's trace. */
    static void trace(int number) {
        RpcContext.getClientAttachment().setAttachment("traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333" + number + "-01");
    }
}

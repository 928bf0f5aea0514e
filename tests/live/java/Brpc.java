package live;

import com.baidu.brpc.RpcContext;
import com.baidu.brpc.client.BrpcProxy;
import com.baidu.brpc.client.RpcClient;
import com.baidu.brpc.client.RpcClientOptions;
import com.baidu.brpc.protocol.BrpcMeta;
import com.baidu.brpc.protocol.Options;
import com.baidu.brpc.server.RpcServer;
import com.baidu.brpc.server.RpcServerOptions;
import com.google.protobuf.DescriptorProtos.EnumValueDescriptorProto;

/** A server and its client over baidu_std: `live.Brpc server PORT`, `live.Brpc client PORT`. */
public class Brpc {
    public interface Asked {
        @BrpcMeta(serviceName = "example.EchoService", methodName = "Echo")
        EnumValueDescriptorProto echo(EnumValueDescriptorProto text);

        @BrpcMeta(serviceName = "example.EchoService", methodName = "Nothing")
        EnumValueDescriptorProto nothing(EnumValueDescriptorProto text);
    }

    public interface Echo {
        @BrpcMeta(serviceName = "example.EchoService", methodName = "Echo")
        EnumValueDescriptorProto echo(EnumValueDescriptorProto text);
    }

    public static class Echoes implements Echo {
        public EnumValueDescriptorProto echo(EnumValueDescriptorProto text) {
            if (text.getName().isEmpty()) {
                throw new IllegalArgumentException("nobody");
            }
            return text;
        }
    }

    public static void main(String[] words) throws Exception {
        int port = Integer.parseInt(words[1]);
        if (words[0].equals("server")) {
            RpcServerOptions options = new RpcServerOptions();
            options.setProtocolType(Options.ProtocolType.PROTOCOL_BAIDU_STD_VALUE);
            RpcServer server = new RpcServer("127.0.0.1", port, options);
            server.registerService(new Echoes());
            server.start();
            Thread.currentThread().join();
        }
        RpcClientOptions options = new RpcClientOptions();
        options.setProtocolType(Options.ProtocolType.PROTOCOL_BAIDU_STD_VALUE);
        options.setMaxTryTimes(1);
        // A server that stands still for a while (holds.py) is waited for.
        options.setConnectTimeoutMillis(30_000);
        options.setReadTimeoutMillis(30_000);
        options.setWriteTimeoutMillis(30_000);
        RpcClient client = new RpcClient("list://127.0.0.1:" + port, options);
        Asked echo = BrpcProxy.getProxy(client, Asked.class);
        EnumValueDescriptorProto text = EnumValueDescriptorProto.newBuilder().setName("hello").build();
        for (int i = 0; i < 10; i++) {
            RpcContext.getContext().reset();
            RpcContext.getContext().setLogId(1000L + i);
            echo.echo(text);
        }
        RpcContext.getContext().reset();
        try {
            echo.nothing(text);
        } catch (RuntimeException refused) {
            System.err.println(refused.getMessage());
        }
        try {
            echo.echo(EnumValueDescriptorProto.newBuilder().setName("").build());
        } catch (RuntimeException refused) {
            System.err.println(refused.getMessage());
        }
        System.out.println("{\"done\": true}");
        System.exit(0);
    }
}

import java.util.concurrent.CountDownLatch;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;

/** Arguments: name server, traceparent. Sends ten messages, two without acknowledgement, and reads them all. */
public class RocketMqClient {
    public static void main(String[] arguments) {
        try {
            run(arguments);
            System.exit(0);
        } catch (Exception error) {
            // The client's own threads would keep the program alive.
            error.printStackTrace();
            System.exit(1);
        }
    }

    private static void run(String[] arguments) throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer("shop");
        producer.setNamesrvAddr(arguments[0]);
        producer.setVipChannelEnabled(false);
        // A server that stands still for a while (holds.py) is waited for.
        producer.setSendMsgTimeout(30_000);
        producer.setMqClientApiTimeout(30_000);
        producer.start();
        StringBuilder sent = new StringBuilder();
        for (int number = 0; number < 10; number++) {
            Message message = new Message("orders", "new", "key" + number, "secret".getBytes());
            message.putUserProperty("traceparent", arguments[1]);
            var result = producer.send(message);
            sent.append(number == 0 ? "" : ",").append('"').append(result.getMsgId()).append(' ')
                .append("orders-").append(result.getMessageQueue().getQueueId()).append('"');
        }
        for (int number = 0; number < 2; number++) {
            producer.sendOneway(new Message("orders", "secret".getBytes()));
        }
        String refused = "";
        try {
            producer.fetchPublishMessageQueues("missing");
        } catch (MQClientException error) {
            refused = "missing";
        }
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer("billing");
        consumer.setNamesrvAddr(arguments[0]);
        consumer.setVipChannelEnabled(false);
        consumer.setConsumeFromWhere(org.apache.rocketmq.common.consumer.ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.subscribe("orders", "*");
        CountDownLatch left = new CountDownLatch(12);
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            messages.forEach(message -> left.countDown());
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        left.await();
        consumer.shutdown();
        producer.shutdown();
        System.out.println("{\"sent\": [" + sent + "], \"refused\": \"" + refused + "\"}");
    }
}

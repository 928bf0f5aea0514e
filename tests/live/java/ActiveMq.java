package live;

import javax.jms.Connection;
import javax.jms.JMSException;
import javax.jms.MessageConsumer;
import javax.jms.MessageProducer;
import javax.jms.Queue;
import javax.jms.Session;
import javax.jms.TextMessage;
import org.apache.activemq.ActiveMQConnectionFactory;
import org.apache.activemq.broker.BrokerService;

/** A broker and a client: `live.ActiveMq server PORT`, `live.ActiveMq client PORT WIRE_FORMAT_OPTIONS MESSAGES`. */
public class ActiveMq {
    public static void main(String[] words) throws Exception {
        String url = "tcp://127.0.0.1:" + words[1];
        if (words[0].equals("server")) {
            BrokerService broker = new BrokerService();
            broker.setPersistent(false);
            broker.setUseJmx(false);
            broker.setAdvisorySupport(false);
            broker.addConnector(url);
            broker.start();
            broker.waitUntilStopped();
            return;
        }
        ActiveMQConnectionFactory factory = new ActiveMQConnectionFactory(url + "?" + words[2]);
        factory.setUseAsyncSend(false);
        factory.setWatchTopicAdvisories(false);
        factory.setClientID("shop");
        Connection connection = factory.createConnection();
        connection.start();
        Session session = connection.createSession(false, Session.AUTO_ACKNOWLEDGE);
        Queue orders = session.createQueue("shop.orders");
        MessageProducer producer = session.createProducer(orders);
        MessageConsumer consumer = session.createConsumer(orders);
        int received = 0;
        for (int i = 0; i < Integer.parseInt(words[3]); i++) {
            TextMessage message = session.createTextMessage("order " + i);
            message.setJMSCorrelationID("order-" + i);
            message.setStringProperty("traceparent",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333" + i + "-01");
            producer.send(message);
            received += consumer.receive(10000) == null ? 0 : 1;
        }
        // A second connection by the same name: the broker refuses it, and closes; now and then before it has said why.
        String refused = "";
        int unanswered = -1;
        do {
            try {
                factory.createConnection().start();
            } catch (JMSException exception) {
                refused = exception.getMessage();
            }
            unanswered++;
        } while (unanswered < 20 && !refused.contains("already connected"));
        connection.close();
        refused = refused.replace('"', '\'');
        System.out.printf("{\"received\": %d, \"unanswered\": %d, \"refused\": \"%s\"}%n", received, unanswered, refused);
        System.exit(0);
    }
}

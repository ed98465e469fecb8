import ch.qos.logback.classic.LoggerContext;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

public class LogbackClient {
    public static void main(String[] arguments) {
        Logger log = LoggerFactory.getLogger("shop");
        log.info("started");
        log.error("no number\nat line 12");
        ((LoggerContext) LoggerFactory.getILoggerFactory()).stop();
    }
}

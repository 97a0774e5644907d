//! Messages for the chat template, gathered from the items of dialects that write an answer as several of them.
//!
//! **Invariant:** the order of the items stays, and thought, text and calls that follow each other are one answer.

use serde_json::{Value, json};

/// Messages in the shape of the chat template, the answer of the model that is being gathered apart.
#[derive(Debug, Default)]
pub(super) struct Turns {
    messages: Vec<Value>,
    answer: Option<Answer>,
}

#[derive(Debug, Default)]
struct Answer {
    reasoning: String,
    content: String,
    calls: Vec<Value>,
}

impl Turns {
    /// A message of a user, a system or a developer.
    pub(super) fn say(&mut self, role: &str, text: String) {
        self.close();
        self.messages.push(json!({ "role": role, "content": text }));
    }

    /// A thought of the model. It begins an answer where the present one has text or calls.
    pub(super) fn think(&mut self, text: &str) {
        if self.answer.as_ref().is_some_and(|answer| !answer.content.is_empty() || !answer.calls.is_empty()) {
            self.close();
        }
        self.answer.get_or_insert_default().reasoning.push_str(text);
    }

    /// Text of the model.
    pub(super) fn answer(&mut self, text: &str) {
        if self.answer.as_ref().is_some_and(|answer| !answer.calls.is_empty()) {
            self.close();
        }
        self.answer.get_or_insert_default().content.push_str(text);
    }

    /// A call of a tool. The arguments may be no JSON: they are then rendered as they are.
    pub(super) fn call(&mut self, id: &str, name: &str, arguments: &str) {
        let function = json!({ "name": name, "arguments": arguments });
        let call = json!({ "id": id, "type": "function", "function": function });
        self.answer.get_or_insert_default().calls.push(call);
    }

    /// The result of a tool.
    pub(super) fn result(&mut self, id: &str, text: String) {
        self.close();
        self.messages.push(json!({ "role": "tool", "tool_call_id": id, "content": text }));
    }

    pub(super) fn finish(mut self) -> Vec<Value> {
        self.close();
        self.messages
    }

    fn close(&mut self) {
        let Some(Answer { reasoning, content, calls }) = self.answer.take() else { return };
        let mut message = json!({ "role": "assistant", "content": content });
        if !reasoning.is_empty() {
            message["reasoning_content"] = reasoning.into();
        }
        if !calls.is_empty() {
            message["tool_calls"] = calls.into();
        }
        self.messages.push(message);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Turns;

    #[test]
    fn items_that_follow_each_other_are_one_answer() {
        let mut turns = Turns::default();
        turns.say("user", "go".to_owned());
        turns.think("hm");
        turns.answer("I ");
        turns.answer("look.");
        turns.call("1", "f", "{\"a\":1}");
        turns.call("2", "g", "broken {");
        turns.result("1", "one".to_owned());
        turns.result("2", "two".to_owned());
        turns.think("so");
        turns.call("3", "f", "{}");
        turns.think("and");
        turns.answer("done");
        let call = |id: &str, name: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
        let want = json!([
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": "I look.", "reasoning_content": "hm",
             "tool_calls": [call("1", "f", "{\"a\":1}"), call("2", "g", "broken {")]},
            {"role": "tool", "tool_call_id": "1", "content": "one"},
            {"role": "tool", "tool_call_id": "2", "content": "two"},
            {"role": "assistant", "content": "", "reasoning_content": "so", "tool_calls": [call("3", "f", "{}")]},
            {"role": "assistant", "content": "done", "reasoning_content": "and"},
        ]);
        assert_eq!(serde_json::Value::from(turns.finish()), want);
    }
}
